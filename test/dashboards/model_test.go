package dashboards

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const dir = "../../dashboards"

// dashboard is the part of Grafana's model that the checks need.
type dashboard struct {
	UID           string   `json:"uid"`
	Title         string   `json:"title"`
	Tags          []string `json:"tags"`
	SchemaVersion int      `json:"schemaVersion"`
	Templating    struct {
		List []variable `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`

	file string
	raw  string
}

type variable struct {
	Name       string          `json:"name"`
	Type       string          `json:"type"`
	Query      string          `json:"query"`
	Regex      string          `json:"regex"`
	AllValue   string          `json:"allValue"`
	IncludeAll bool            `json:"includeAll"`
	Datasource source          `json:"datasource"`
	Current    json.RawMessage `json:"current"`
}

type source struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

type panel struct {
	ID      int                      `json:"id"`
	Type    string                   `json:"type"`
	Title   string                   `json:"title"`
	GridPos struct{ X, Y, W, H int } `json:"gridPos"`
	Targets []target                 `json:"targets"`
}

type target struct {
	RefID      string `json:"refId"`
	Datasource source `json:"datasource"`
	Expr       string `json:"expr"`
	Instant    bool   `json:"instant"`
	Exemplar   bool   `json:"exemplar"`
	// Jaeger
	QueryType string `json:"queryType"`
	Service   string `json:"service"`
	Tags      string `json:"tags"`
}

func load(t *testing.T) []dashboard {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 3 {
		t.Fatalf("only %d dashboards in %s", len(files), dir)
	}
	var all []dashboard
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		d := dashboard{file: filepath.Base(file), raw: string(raw)}
		decoder := json.NewDecoder(bytes.NewReader(raw))
		if err := decoder.Decode(&d); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, d)
	}
	return all
}

func TestDashboardsAreSound(t *testing.T) {
	all := load(t)
	uids := map[string]bool{}
	for _, d := range all {
		uids[d.UID] = true
	}
	for _, d := range all {
		if want := "longhaul-" + strings.TrimSuffix(d.file, ".json"); d.UID != want {
			t.Errorf("%s: uid %q, want %q: bookmarks and links rely on it", d.file, d.UID, want)
		}
		if d.SchemaVersion < 41 || !slices.Contains(d.Tags, "longhaul") {
			t.Errorf("%s: schema %d, tags %v", d.file, d.SchemaVersion, d.Tags)
		}
		for _, link := range regexp.MustCompile(`"/d/([a-z-]+)[?"]`).FindAllStringSubmatch(d.raw, -1) {
			if !uids[link[1]] {
				t.Errorf("%s links to %s, which is no dashboard", d.file, link[1])
			}
		}
		checkPanels(t, d)
		checkVariables(t, d)
	}
}

func checkPanels(t *testing.T, d dashboard) {
	t.Helper()
	ids := map[int]bool{}
	for i, p := range d.Panels {
		if ids[p.ID] || p.ID == 0 {
			t.Errorf("%s: two panels have the id %d", d.file, p.ID)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: %s is wider than the page", d.file, p.Title)
		}
		for _, q := range d.Panels[:i] {
			if p.GridPos.X < q.GridPos.X+q.GridPos.W && q.GridPos.X < p.GridPos.X+p.GridPos.W &&
				p.GridPos.Y < q.GridPos.Y+q.GridPos.H && q.GridPos.Y < p.GridPos.Y+p.GridPos.H {
				t.Errorf("%s: %s and %s lie on each other", d.file, q.Title, p.Title)
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s: %s asks nothing", d.file, p.Title)
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${"+target.Datasource.Type+"}" {
				t.Errorf("%s: %s is bound to the data source %q", d.file, p.Title, target.Datasource.UID)
			}
		}
	}
}

// builtIn are the variables Grafana itself fills in.
var builtIn = []string{"__rate_interval", "__range", "__auto", "__field", "__value", "__url_time_range"}

func checkVariables(t *testing.T, d dashboard) {
	t.Helper()
	defined := slices.Clone(builtIn)
	for _, v := range d.Templating.List {
		if v.Type == "datasource" && !strings.Contains(string(v.Current), `"value": "`+v.Name+`"`) {
			t.Errorf("%s: the data source variable %s does not begin with the provisioned one", d.file, v.Name)
		}
		defined = append(defined, v.Name)
	}
	for _, use := range regexp.MustCompile(`\$\{?(\w+)`).FindAllStringSubmatch(d.raw, -1) {
		if !slices.Contains(defined, use[1]) && use[1] != "__all" {
			t.Errorf("%s uses $%s, which nothing defines", d.file, use[1])
		}
	}
	for _, v := range d.Templating.List {
		if n := strings.Count(d.raw, "$"+v.Name) + strings.Count(d.raw, "${"+v.Name+"}"); n == 0 {
			t.Errorf("%s defines %s and does not use it", d.file, v.Name)
		}
	}
}

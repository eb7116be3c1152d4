package containerlogsreceiver

import "time"

// parseTimestamp reads an RFC 3339 time with up to nine digits of fraction and
// 'Z' or a numeric offset, and returns nanoseconds since 1970. Years outside
// 1970..2261 are refused: they do not fit the record's timestamp.
func parseTimestamp(text []byte) (int64, bool) {
	if len(text) < len("2006-01-02T15:04:05Z") ||
		text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't') || text[13] != ':' || text[16] != ':' {
		return 0, false
	}
	century, ok0 := twoDigits(text, 0)
	decade, ok1 := twoDigits(text, 2)
	month, ok2 := twoDigits(text, 5)
	day, ok3 := twoDigits(text, 8)
	hour, ok4 := twoDigits(text, 11)
	minute, ok5 := twoDigits(text, 14)
	second, ok6 := twoDigits(text, 17)
	year := century*100 + decade
	if !(ok0 && ok1 && ok2 && ok3 && ok4 && ok5 && ok6) || year < 1970 || year > 2261 ||
		month < 1 || month > 12 || day < 1 || day > daysIn(month, year) || hour > 23 || minute > 59 || second > 60 {
		return 0, false
	}
	nanoseconds, rest, ok := parseFraction(text[19:])
	if !ok {
		return 0, false
	}
	offset, ok := parseOffset(rest)
	if !ok {
		return 0, false
	}
	seconds := daysSince1970(year, month, day)*86400 + int64(hour*3600+minute*60+second) - offset
	return seconds*int64(time.Second) + nanoseconds, seconds >= 0
}

func twoDigits(text []byte, at int) (int, bool) {
	a, b := text[at]-'0', text[at+1]-'0'
	return int(a)*10 + int(b), a <= 9 && b <= 9
}

func parseFraction(text []byte) (nanoseconds int64, rest []byte, ok bool) {
	if text[0] != '.' {
		return 0, text, true
	}
	text = text[1:]
	digits := 0
	for digits < len(text) && text[digits]-'0' <= 9 {
		if digits < 9 {
			nanoseconds = nanoseconds*10 + int64(text[digits]-'0')
		}
		digits++
	}
	for i := digits; i < 9; i++ {
		nanoseconds *= 10
	}
	return nanoseconds, text[digits:], digits > 0
}

func parseOffset(text []byte) (seconds int64, ok bool) {
	switch {
	case len(text) == 1 && (text[0] == 'Z' || text[0] == 'z'):
		return 0, true
	case len(text) == len("+07:00") && (text[0] == '+' || text[0] == '-') && text[3] == ':':
		hours, ok1 := twoDigits(text, 1)
		minutes, ok2 := twoDigits(text, 4)
		seconds = int64(hours*3600 + minutes*60)
		if text[0] == '-' {
			seconds = -seconds
		}
		return seconds, ok1 && ok2 && hours <= 23 && minutes <= 59
	}
	return 0, false
}

func daysIn(month, year int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}

// daysSince1970 counts days of the Gregorian calendar, with the year taken to
// begin in March so that the leap day is its last.
func daysSince1970(year, month, day int) int64 {
	if month <= 2 {
		year--
		month += 12
	}
	return int64(365*year+year/4-year/100+year/400+(153*(month-3)+2)/5+day-1) - 719468
}

// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caarlos0/env/v10"
)

// Secret is a string that prints as *** wherever it could be printed by accident.
type Secret string

const masked = "***"

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// Empty says that it is not set.
func (s Secret) Empty() bool { return s == "" }

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString covers %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// Format covers every verb, %x and %q too.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText covers encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue covers slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Size is a number of bytes.
type Size int64

// List is a list of words.
type List []string

// The rules of the simple types, which are also their error texts.
var (
	errBool     = errors.New("must be one of 1 0 true false yes no on off")
	errDuration = errors.New("must be a duration such as 500ms, 10s or 2m; a bare number is seconds")
	errSize     = errors.New("must be a size such as 512kB, 16MB or 1GB; a bare number is bytes")
	errInt      = errors.New("must be a whole number")
)

func parsers() map[reflect.Type]env.ParserFunc {
	return map[reflect.Type]env.ParserFunc{
		reflect.TypeFor[bool]():          func(s string) (any, error) { return parseBool(s) },
		reflect.TypeFor[int]():           func(s string) (any, error) { return parseInt(s) },
		reflect.TypeFor[time.Duration](): func(s string) (any, error) { return parseDuration(s) },
		reflect.TypeFor[Size]():          func(s string) (any, error) { return parseSize(s) },
		reflect.TypeFor[List]():          func(s string) (any, error) { return parseList(s), nil },
	}
}

func parseInt(s string) (int, error) {
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		return 0, errInt
	}
	return n, nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "1", "true", "yes", "on":
		return true, nil
	case "0", "false", "no", "off":
		return false, nil
	}
	return false, errBool
}

func parseDuration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > math.MaxInt64/int64(time.Second) {
			return 0, errDuration
		}
		return time.Duration(n) * time.Second, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, errDuration
	}
	return d, nil
}

// parseSize takes Postgres' units: powers of 1024, with a small k.
func parseSize(s string) (Size, error) {
	s = strings.TrimSpace(s)
	number := strings.TrimRightFunc(s, unicode.IsLetter)
	units := map[string]uint{"": 0, "B": 0, "kB": 10, "MB": 20, "GB": 30, "TB": 40}
	shift, known := units[s[len(number):]]
	n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
	if err != nil || !known || n < 0 || n > math.MaxInt64>>shift {
		return 0, errSize
	}
	return Size(n << shift), nil
}

// parseList splits at commas, semicolons and white space; a comma at the end is fine.
func parseList(s string) List {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || unicode.IsSpace(r) })
	return slices.Clip(List(words))
}

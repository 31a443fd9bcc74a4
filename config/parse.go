// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caarlos0/env/v10"
)

// parser collects what one Parse finds.
type parser struct {
	cfg      Config
	vars     []variable
	set      map[string]string // the non-empty variables, twins resolved
	hostname string
	problems []Problem
	warnings []Warning
}

// Parse reads the configuration of a cluster member. args are those of the server; readFile reads the files of the
// _FILE twins. A bad configuration is an *Error that names every mistake.
func Parse(
	environ, args []string, hostname string, readFile func(string) ([]byte, error),
) (Config, []Warning, error) {
	p := &parser{vars: variables(), set: make(map[string]string), hostname: hostname}
	p.cfg.resolved = make(map[string]bool)
	p.gather(environ, readFile)
	p.unknown(environ)
	p.hints(environ)
	p.fill()
	p.validate()
	p.arguments(args)
	if len(p.problems) > 0 {
		return Config{}, p.warnings, &Error{p.problems}
	}
	return p.cfg, p.warnings, nil
}

func (p *parser) warn(format string, a ...any) {
	p.warnings = append(p.warnings, Warning(fmt.Sprintf(format, a...)))
}

// fail notes a mistake in a variable. It shows the variable's value unless that is secret.
func (p *parser) fail(name, fix, format string, a ...any) {
	problem := Problem{Variable: name, Rule: fmt.Sprintf(format, a...), Fix: fix, Value: p.set[name]}
	i := slices.IndexFunc(p.vars, func(v variable) bool { return v.name == name })
	if i >= 0 && p.vars[i].secret && problem.Value != "" {
		problem.Value = masked
	}
	p.problems = append(p.problems, problem)
}

// gather takes the variables of the table out of the environment. Empty means unset, as in the base image.
func (p *parser) gather(environ []string, readFile func(string) ([]byte, error)) {
	for _, v := range p.vars {
		value := Lookup(environ, v.name)
		file := ""
		if v.twin {
			file = Lookup(environ, v.name+fileSuffix)
		}
		switch {
		case value != "" && file != "":
			p.problems = append(p.problems, Problem{
				Variable: v.name, official: true,
				Rule: fmt.Sprintf("both %s and %s%s are set (but are exclusive)", v.name, v.name, fileSuffix),
			})
		case file != "":
			raw, err := readFile(file)
			if err != nil {
				p.problems = append(p.problems, Problem{
					Variable: v.name + fileSuffix, Value: file, Rule: fmt.Sprintf("cannot be read: %v", err),
				})
				p.set[v.name] = "" // known to be meant: not also "missing"
				p.cfg.resolved[v.name] = true
				continue
			}
			value = strings.TrimRight(string(raw), "\n")
			p.cfg.resolved[v.name] = true
		}
		if value != "" {
			p.set[v.name] = value
		}
	}
}

// serviceLink matches what Kubernetes and Docker's old links put into the environment of everybody who runs beside
// a service called "pgquorum".
var serviceLink = regexp.MustCompile(`^PGQUORUM_(SERVICE_(HOST|PORT.*)|PORT|PORT_[0-9]+_.*|NAME|ENV_.*)$`)

// unknown refuses names that we do not know: with nothing but an environment, a typo is invisible otherwise.
func (p *parser) unknown(environ []string) {
	known := make(map[string]bool)
	for _, v := range p.vars {
		known[v.name] = true
		known[v.name+fileSuffix] = v.twin
	}
	var names []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, prefix) && !known[name] && !serviceLink.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		base, suffix := strings.TrimSuffix(name, fileSuffix), ""
		if base != name {
			suffix = fileSuffix
		}
		fix := "see docs/configuration.md for all names, or remove it"
		if n := nearest(base, p.vars); n != "" {
			fix = "did you mean " + n + suffix + "?"
		}
		p.problems = append(p.problems, Problem{Variable: name, Rule: "there is no such variable", Fix: fix})
	}
}

// fill parses the values into the struct.
func (p *parser) fill() {
	err := env.ParseWithOptions(&p.cfg, env.Options{Environment: p.set, FuncMap: parsers()})
	var all env.AggregateError
	if err == nil || !errors.As(err, &all) {
		if err != nil {
			panic(fmt.Sprintf("config: the struct does not fit its parser: %v", err))
		}
		return
	}
	for _, err := range all.Errors {
		var one env.ParseError
		if !errors.As(err, &one) {
			panic(fmt.Sprintf("config: the struct does not fit its parser: %v", err))
		}
		i := slices.IndexFunc(p.vars, func(v variable) bool { return v.field == one.Name })
		p.fail(p.vars[i].name, "", "%v", one.Err)
	}
}

// hints tells people who come from another image what the words are here. Nothing is taken over silently.
func (p *parser) hints(environ []string) {
	seen := make(map[string]bool)
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if value == "" {
			continue
		}
		for _, h := range foreign {
			if strings.HasPrefix(name, h.prefix) && !seen[h.prefix] {
				seen[h.prefix] = true
				p.warn("%s is a setting of %s and has no effect here: %s", name, h.of, h.hint)
			}
		}
	}
	slices.Sort(p.warnings)
}

// foreign are the names that people bring along.
var foreign = []struct{ prefix, of, hint string }{
	{"REPMGR_", "bitnami/postgresql-repmgr", "list all nodes in PGQUORUM_PEERS, set PGQUORUM_SECRET"},
	{"POSTGRESQL_", "the Bitnami images", "use POSTGRES_PASSWORD, POSTGRES_USER (the superuser), POSTGRES_DB"},
	{"PATRONI_", "Patroni", "PGQUORUM_CLUSTER is its scope, PGQUORUM_NODE its name; there is no etcd to point to"},
	{"SPILO_", "Spilo", "use POSTGRES_* and PGQUORUM_*"},
}

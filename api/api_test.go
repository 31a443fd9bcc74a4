// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func ask(h http.Handler, method, target string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), method, target, nil))
	return w
}

// codePaths are the columns of testdata/codes.txt.
func codePaths() []string {
	return []string{
		"/", "/primary", "/master", "/read-write", "/leader", "/standby-leader", "/replica", "/replica?lag=1MB",
		"/replica?lag=1GB", "/replica?lag=much", "/replica?replication_state=streaming", "/replica?tag_zone=a", "/read-only",
		"/sync", "/quorum", "/async", "/read-only-sync", "/read-only-quorum", "/health", "/readiness", "/readiness?lag=1GB",
		"/readiness?mode=write", "/liveness", "/patroni", "/cluster", "/history", "/metrics", "/nonsense", "/primary/",
	}
}

// TestCodes keeps the code of each health check in each situation, and proves HEAD and OPTIONS to be like GET.
func TestCodes(t *testing.T) {
	var b strings.Builder
	for _, s := range situations() {
		h := NewHTTP(Options{Node: &fixed{view: s.view}, Port: 8008})
		byCode := map[int][]string{}
		for _, path := range codePaths() {
			get := ask(h, http.MethodGet, path)
			byCode[get.Code] = append(byCode[get.Code], path)
			if get.Body.Len() == 0 {
				t.Errorf("%s: GET %s has no body", s.name, path)
			}
			for _, method := range []string{http.MethodHead, http.MethodOptions} {
				if w := ask(h, method, path); w.Code != get.Code || w.Body.Len() != 0 {
					t.Errorf("%s: %s %s is %d with %d bytes, GET is %d", s.name, method, path, w.Code, w.Body.Len(), get.Code)
				}
			}
		}
		fmt.Fprintf(&b, "%s\n", s.name)
		for _, code := range []int{200, 503} {
			fmt.Fprintf(&b, "  %d %s\n", code, strings.Join(byCode[code], " "))
			delete(byCode, code)
		}
		if len(byCode) != 0 {
			t.Errorf("%s: other codes: %v", s.name, byCode)
		}
	}
	golden(t, "testdata/codes.txt", b.String())
}

func TestOnlyQuestions(t *testing.T) {
	h := NewHTTP(Options{Node: &fixed{view: onPrimary()}})
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if w := ask(h, method, "/switchover"); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
			t.Errorf("%s: code %d", method, w.Code)
		}
	}
}

func indented(t *testing.T, doc any) string {
	t.Helper()
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b) + "\n"
}

// TestStatus keeps the status document of each situation, one line for each member.
func TestStatus(t *testing.T) {
	var b strings.Builder
	for _, s := range situations() {
		d := Status(s.view)
		fmt.Fprintf(&b, "%s\n  node=%s primary=%s phase=%s epoch=%d timeline=%d leader=%s redundant=%t set=%v k=%d pending=%t\n",
			s.name, d.Node, d.Primary, d.Phase, d.Epoch, d.Timeline, d.Leader, d.Redundant, d.Durability.Set, d.Durability.K, d.Durability.Pending != nil)
		for _, m := range d.Members {
			lag := "-"
			if m.LagBytes != nil {
				lag = fmt.Sprint(*m.LagBytes)
			}
			fmt.Fprintf(&b, "  %s %s [%s] streaming=%t sync=%t linked=%t tl=%d lsn=%s lag=%s lease=%d epoch=%d why=%q trouble=%q\n",
				m.Name, m.Role, m.State, m.Streaming, m.Sync, m.Linked, m.Timeline, m.LSN, lag, m.LeaseMS, m.Epoch, m.WhyNot, m.Trouble)
		}
	}
	golden(t, "testdata/status.txt", b.String())
	golden(t, "testdata/status.json", indented(t, Status(onStandby())))
}

func TestPatroniDocuments(t *testing.T) {
	for name, v := range map[string]View{"primary": onPrimary(), "standby": onStandby()} {
		h := NewHTTP(Options{Node: &fixed{view: v}, Port: 8008})
		var b strings.Builder
		for _, path := range []string{"/patroni", "/cluster", "/history", "/nonsense"} {
			w := ask(h, http.MethodGet, path)
			fmt.Fprintf(&b, "%s %d %s\n%s", path, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
		golden(t, "testdata/patroni-"+name+".txt", b.String())
	}
}

func TestLivenessSeesAStuckLoop(t *testing.T) {
	var p pulse
	v := onPrimary()
	at := time.Unix(1000, 0)
	if a := p.alive(&v, at); !a.ok {
		t.Fatal(a.why)
	}
	if a := p.alive(&v, at.Add(stuckAfter-1)); !a.ok {
		t.Fatal("too early: " + a.why)
	}
	if a := p.alive(&v, at.Add(stuckAfter)); a.ok {
		t.Fatal("the clock stood still and nobody noticed")
	}
	v.Now++
	if a := p.alive(&v, at.Add(2*stuckAfter)); !a.ok {
		t.Fatal("it goes on: " + a.why)
	}
	v.Now = 0 // the loop did not answer
	if a := p.alive(&v, at.Add(3*stuckAfter)); a.ok {
		t.Fatal("a loop that does not answer is alive")
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "1048576": 1 << 20, "16MB": 16 << 20, "1 gb": 1 << 30, "3kB": 3072, "7b": 7, "1TB": 1 << 40} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("parseBytes(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MB", "-1", "1.5MB", "99999999999TB", "1 MB 2", "x"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("parseBytes(%q) = %d", text, got)
		}
	}
}

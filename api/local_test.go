// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pgquorum/pgquorum/api/status"
	"github.com/pgquorum/pgquorum/cluster"
)

// socket serves a node's local side in a directory of its own, and returns the path and a client.
func socket(t *testing.T, n Node) (string, *http.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgq") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, status.SocketName)
	if err := os.WriteFile(path, nil, 0o666); err != nil { // left behind by an earlier run
		t.Fatal(err)
	}
	ln, err := ListenSocket(dir, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- ServeLocal(ctx, ln, NewLocal(Options{Node: n, Counters: NewCounters()}), nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return path, &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
}

func TestSocketIsForItsOwner(t *testing.T) {
	path, client := socket(t, &fixed{view: onStandby()})
	st, err := os.Lstat(path)
	if err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
	res, err := client.Get("http://node" + status.PathStatus)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var d status.Doc
	if err := json.NewDecoder(res.Body).Decode(&d); err != nil || d.Primary != "pg1" || !d.Redundant {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := ListenSocket("/"+strings.Repeat("x", 120), -1, -1); err == nil || !strings.Contains(err.Error(), "may have 100 bytes") {
		t.Fatalf("too long a path: %v", err)
	}
}

func TestOrders(t *testing.T) {
	n := &fixed{view: onStandby()}
	_, client := socket(t, n)
	post := func(body string) (int, status.Outcome) {
		t.Helper()
		res, err := client.Post("http://node"+status.PathRequest, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		var o status.Outcome
		if err := json.Unmarshal(b, &o); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		return res.StatusCode, o
	}
	var asked []cluster.Request
	reply, failure := cluster.Response{OK: true, Msg: "pg2 is the primary"}, error(nil)
	n.request = func(_ context.Context, r cluster.Request) (cluster.Response, error) {
		asked = append(asked, r)
		return reply, failure
	}
	if code, o := post(`{"op":"switchover","target":"pg2"}`); code != 200 || !o.OK || o.Message != "pg2 is the primary" {
		t.Errorf("%d %+v", code, o)
	}
	if len(asked) != 1 || asked[0].Op != "switchover" || asked[0].Target != "pg2" || asked[0].ID == 0 {
		t.Errorf("asked %+v", asked)
	}
	reply = cluster.Response{Msg: "pause is not available yet"}
	if code, o := post(`{"op":"pause"}`); code != 409 || o.OK || o.Message != "pause is not available yet" {
		t.Errorf("%d %+v", code, o)
	}
	reply, failure = cluster.Response{OK: true}, errors.New("the node is stopping")
	if code, o := post(`{"op":"resume"}`); code != 500 || o.OK || o.Message != "the node is stopping" {
		t.Errorf("%d %+v", code, o)
	}
	for _, body := range []string{"", "{", `{"op":"drop"}`, `{"op":"` + strings.Repeat("x", 9000) + `"}`} {
		if code, o := post(body); code != 400 || o.OK {
			t.Errorf("%.20q: %d %+v", body, code, o)
		}
	}
	if len(asked) != 3 {
		t.Errorf("a bad order reached the node: %+v", asked)
	}
	if asked[1].ID == asked[2].ID {
		t.Error("two orders with one id")
	}
}

// TestOrderOutlivesTimeouts: none of the server's limits cuts off an order that takes its time.
func TestOrderOutlivesTimeouts(t *testing.T) {
	n := &fixed{view: onStandby()}
	cancelled := make(chan struct{})
	n.request = func(ctx context.Context, _ cluster.Request) (cluster.Response, error) {
		select {
		case <-ctx.Done():
			close(cancelled)
			return cluster.Response{}, ctx.Err()
		case <-time.After(headerTimeout + 500*time.Millisecond): // the shortest limit that could hit it
			return cluster.Response{OK: true, Msg: "done"}, nil
		}
	}
	_, client := socket(t, n)
	res, err := client.Post("http://node"+status.PathRequest, "application/json", strings.NewReader(`{"op":"switchover"}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("code %d", res.StatusCode)
	}
	// Whoever leaves takes the wait along.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://node"+status.PathRequest, strings.NewReader(`{"op":"switchover"}`))
	if res, err := client.Do(req); err == nil {
		res.Body.Close()
		t.Fatal("answered before its time")
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Fatal("the node still waits for nobody")
	}
}

func TestHealthOfSituations(t *testing.T) {
	var b strings.Builder
	for _, s := range situations() {
		h := NewLocal(Options{Node: &fixed{view: s.view}})
		if w := ask(h, http.MethodGet, status.PathHealth); w.Code != 200 {
			t.Errorf("%s: a node whose loop runs is healthy: %d %s", s.name, w.Code, w.Body)
		}
		w := ask(h, http.MethodGet, status.PathHealth+"?ready=1")
		var o status.Outcome
		if err := json.Unmarshal(w.Body.Bytes(), &o); err != nil || o.OK != (w.Code == 200) {
			t.Errorf("%s: %v %s", s.name, err, w.Body)
		}
		b.WriteString(s.name + ": " + http.StatusText(w.Code) + ": " + o.Message + "\n")
	}
	golden(t, "testdata/ready.txt", b.String())
}

func TestServeOnNetwork(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := Listen(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, ln, NewHTTP(Options{Node: &fixed{view: onPrimary()}}), nil) }()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	req, _ := http.NewRequestWithContext(ctx, http.MethodOptions, "http://127.0.0.1:"+port+"/", nil)
	res, err := http.DefaultClient.Do(req)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	res.Body.Close()
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it does not end")
	}
}

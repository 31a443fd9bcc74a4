// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
	"github.com/pgquorum/pgquorum/durable"
)

// Names in the state directory that are ours.
const (
	identityFile = "identity.json"
	bootFile     = "boot"
	lockFile     = "lock"
)

// identity says which state directory this is and which run of process 1 (PROTOCOL 1.3, 1.7).
type identity struct {
	incarnation cluster.Incarnation
	boot        cluster.Boot   // the number is +1 at each start, on disk before anything else happens
	boots       []cluster.Boot // since the last one that this volume knows to be registered; boot is the last of them
	kernel      string         // the machine's boot: what was written in it survives a mere restart of the container
	fresh       bool           // the incarnation was made just now
	path        string         // of the list of boots
}

// identityJSON is the file's form. Hexadecimal, because JSON's numbers lose bits.
type identityJSON struct {
	Incarnation string `json:"incarnation"`
}

// takeIdentity reads the identity, making it on the first start, and counts the start.
func takeIdentity(state string) (id identity, err error) {
	id.incarnation, id.fresh, err = incarnation(state)
	if err != nil {
		return identity{}, fmt.Errorf("take identity: %w", err)
	}
	id.path = filepath.Join(state, bootFile)
	if id.boots, err = countBoot(state, id.fresh); err != nil {
		return identity{}, fmt.Errorf("take identity: %w", err)
	}
	id.boot = id.boots[len(id.boots)-1]
	kernel, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return identity{}, fmt.Errorf("take identity: read the machine's boot id: %w", err)
	}
	id.kernel = strings.TrimSpace(string(kernel))
	return id, nil
}

func incarnation(state string) (inc cluster.Incarnation, fresh bool, err error) {
	path := filepath.Join(state, identityFile)
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		inc, err = parseIdentity(raw)
		if err != nil {
			err = fmt.Errorf("%s is damaged: %w%s", path, err, identityFix)
		}
		return inc, false, err
	case !errors.Is(err, fs.ErrNotExist):
		return 0, false, err
	}
	// Votes without the identity that gave them must not be taken over by a new one.
	left, err := leftovers(state)
	if err != nil {
		return 0, false, err
	}
	if left != "" {
		return 0, false, fmt.Errorf("%s is missing, but %s is there%s", path, left, identityFix)
	}
	inc = cluster.Incarnation(random())
	raw, err = json.Marshal(identityJSON{Incarnation: inc.String()})
	if err != nil {
		return 0, false, err
	}
	return inc, true, durable.WriteFile(path, append(raw, '\n'), 0o600)
}

const identityFix = "\n  move the state directory away: this node then rejoins as a new member"

func parseIdentity(raw []byte) (cluster.Incarnation, error) {
	var file identityJSON
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&file); err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(file.Incarnation, 16, 64)
	if err != nil || n == 0 || len(file.Incarnation) != 16 {
		return 0, fmt.Errorf("incarnation %q is not 16 hexadecimal digits", file.Incarnation)
	}
	return cluster.Incarnation(n), nil
}

// leftovers names something in the state directory that only a member with an identity has written.
func leftovers(state string) (string, error) {
	for _, name := range []string{bootFile, "raft", "promise", "floor.json", "offer.json", "genesis.json", "plan.json"} {
		_, err := os.Lstat(filepath.Join(state, name))
		if err == nil {
			return name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// countBoot adds a start to the list of boots. A list that cannot be read is an error: guessing would make peers refuse
// us as a rolled-back volume, or hide that we are one.
func countBoot(state string, fresh bool) ([]cluster.Boot, error) {
	path := filepath.Join(state, bootFile)
	var boots []cluster.Boot
	raw, err := os.ReadFile(path)
	switch {
	case err == nil:
		if boots, err = parseBoots(string(raw)); err != nil {
			return nil, fmt.Errorf("%s is damaged: %w%s", path, err, identityFix)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case !fresh && !interrupted(state):
		return nil, fmt.Errorf("%s is missing%s", path, identityFix)
	}
	boots = cluster.NextBoots(boots, random())
	return boots, writeBoots(path, boots)
}

// registered makes the list begin with the present boot: it is registered, so the ones before say nothing any more.
func (id identity) registered() error { return writeBoots(id.path, []cluster.Boot{id.boot}) }

// writeBoots writes a line for each boot, as Boot.String has it.
func writeBoots(path string, boots []cluster.Boot) error {
	var text strings.Builder
	for _, b := range boots {
		fmt.Fprintln(&text, b)
	}
	return durable.WriteFile(path, []byte(text.String()), 0o600)
}

func parseBoots(text string) ([]cluster.Boot, error) {
	var boots []cluster.Boot
	last := uint64(0)
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		number, id, _ := strings.Cut(line, ".")
		n, errN := strconv.ParseUint(number, 10, 64)
		i, errI := strconv.ParseUint(id, 16, 64)
		if errN != nil || errI != nil || n <= last || i == 0 || len(id) != 16 {
			return nil, fmt.Errorf("%q is not a boot after boot %d: a number, a dot and 16 hexadecimal digits", line, last)
		}
		last = n
		boots = append(boots, cluster.Boot{Number: n, ID: i})
	}
	if len(boots) == 0 || len(boots) > cluster.MaxBoots {
		return nil, fmt.Errorf("it lists %d boots, not 1 to %d", len(boots), cluster.MaxBoots)
	}
	return boots, nil
}

// interrupted says that the very first start ended between writing the identity and the boot number: nothing else
// can be there then.
func interrupted(state string) bool {
	left, err := leftovers(state)
	return err == nil && left == ""
}

// random is never 0, and below 2^63: raft reserves the highest ids.
func random() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:])>>1 | 1
}

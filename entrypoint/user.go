// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// postgresUser is the name of the image's user. Its number differs (Debian 999, Alpine 70, others), so it is read
// from the image and never assumed.
const postgresUser = "postgres"

// osUser is a user of the system. os/user is not used: without cgo it reads the same files, but asks for the
// current user in ways that fail under an arbitrary --user.
type osUser struct {
	Name   string // empty when the number is in no passwd file (--user 1000)
	UID    int
	GID    int
	Groups []int // supplementary
	Home   string
}

// defaultHome is the home of the official images' postgres user.
const defaultHome = "/var/lib/postgresql"

// findUser returns who Postgres runs as: the image's postgres user when we are root, ourselves otherwise.
func findUser(readFile func(string) ([]byte, error)) (osUser, error) {
	passwd, err := readFile("/etc/passwd")
	if err != nil {
		return osUser{}, fmt.Errorf("find user: %w", err)
	}
	uid := os.Geteuid()
	u, found := parsePasswd(string(passwd), func(name string, id int) bool {
		if uid == 0 {
			return name == postgresUser
		}
		return id == uid
	})
	switch {
	case !found && uid == 0:
		return osUser{}, fmt.Errorf("find user: there is no user %s in this image; start the container with --user", postgresUser)
	case !found:
		return osUser{UID: uid, GID: os.Getegid(), Home: defaultHome}, nil
	case uid != 0:
		u.GID = os.Getegid()
		return u, nil
	}
	groups, err := readFile("/etc/group")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return osUser{}, fmt.Errorf("find user: %w", err)
	}
	u.Groups = parseGroups(string(groups), u.Name, u.GID)
	return u, nil
}

func parsePasswd(text string, match func(name string, uid int) bool) (osUser, bool) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 7 {
			continue
		}
		uid, err1 := strconv.Atoi(f[2])
		gid, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil || !match(f[0], uid) {
			continue
		}
		u := osUser{Name: f[0], UID: uid, GID: gid, Home: f[5]}
		if !filepath.IsAbs(u.Home) {
			u.Home = defaultHome
		}
		return u, true
	}
	return osUser{}, false
}

// parseGroups lists the groups that name a user as a member, the primary one first. A distribution's TLS keys are
// readable through one of them.
func parseGroups(text, name string, primary int) []int {
	groups := []int{primary}
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), name) {
			continue
		}
		if gid, err := strconv.Atoi(f[2]); err == nil && !slices.Contains(groups, gid) {
			groups = append(groups, gid)
		}
	}
	return groups
}

// drop gives root away for good, in this very process: a child that changes its user by itself would lose its net
// (PR_SET_PDEATHSIG), and process 1 with the user of Postgres can kill Postgres and nothing else.
func (u osUser) drop() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := syscall.Setgroups(u.Groups); err != nil {
		return fmt.Errorf("become user %s: set groups: %w", u.Name, err)
	}
	if err := syscall.Setgid(u.GID); err != nil {
		return fmt.Errorf("become user %s: set group: %w", u.Name, err)
	}
	if err := syscall.Setuid(u.UID); err != nil {
		return fmt.Errorf("become user %s: %w", u.Name, err)
	}
	if u.UID != 0 && syscall.Setuid(0) == nil {
		return errors.New("become user " + u.Name + ": root is still there")
	}
	return nil
}

// own gives a path to the user, when we are root and it is not theirs yet. The group stays, as with the base image.
func (u osUser) own(path string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if int(info.Sys().(*syscall.Stat_t).Uid) == u.UID {
		return nil
	}
	return os.Lchown(path, u.UID, -1)
}

// ownTree does it for a directory and everything in it. One that does not exist is no error.
func (u osUser) ownTree(root string) error {
	if os.Geteuid() != 0 || root == "" {
		return nil
	}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = u.own(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("give %s to user %s: %w", root, u.Name, err)
	}
	return nil
}

// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgquorum/pgquorum/durable"
)

// Service is the name of our group in the upstream file, and ConnInfo the constant value of primary_conninfo.
const (
	Service  = "pgquorum"
	ConnInfo = "service=" + Service + " dbname=postgres"
)

// maxLine is what libpq of 15 reads of one line of a service file.
const maxLine = 1000

// ErrNotParked means that an order was given to a file that is not parked: the file only ever changes from parked
// to ordered and back (1.8), because the receivers of one order must be gone before the next.
var ErrNotParked = errors.New("upstream file is not parked")

// Order names an upstream.
type Order struct {
	Host     string // a name for logs; never looked up
	HostAddr string // IP address: a look-up inside the WAL receiver could block
	Port     int
	User     string
	Password string
	AppName  string // the sync name (3.1.b), or one in no list
	Insecure bool   // no TLS: PGQUORUM_REPLICATION_TLS=off, or a unix socket
	// Timeout bounds the connection attempt and unacknowledged data; 5 s when 0.
	Timeout time.Duration
}

// FileOptions says where the upstream file lies.
type FileOptions struct {
	Path        string // what PGSERVICEFILE names
	UserFile    string // the user's own service file, whose other groups are carried over; "" for none
	ParkingDir  string // the directory of the parking socket
	ParkingPort int
	Parking     *Parking // told what the file says; nil: somebody else listens there, or nobody
	User        string   // role to log in as; of no effect when parked
}

// File is the upstream file. It is safe for concurrent use.
type File struct {
	opt FileOptions

	mu     sync.Mutex
	parked bool
}

// NewFile returns the file, parked.
func NewFile(o FileOptions) (*File, error) {
	f := &File{opt: o}
	if err := f.Park(); err != nil {
		return nil, err
	}
	return f, nil
}

// Park renames the parked form into place. A connection attempt from now on ends in the parking socket; one that
// began before may still use what it read, which is why a fence does not end here.
func (f *File) Park() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.parked = false
	if f.opt.Parking != nil {
		f.opt.Parking.Hold()
	}
	err := f.write([][2]string{
		{"host", f.opt.ParkingDir},
		{"hostaddr", ""}, // PGHOSTADDR would beat a socket
		{"port", strconv.Itoa(f.opt.ParkingPort)},
		{"user", f.opt.User},
		{"password", ""},
		{"application_name", "parked"},
		{"sslmode", "disable"},
		{"channel_binding", "disable"},
		{"connect_timeout", "0"}, // waiting is the purpose
	})
	f.parked = err == nil
	return err
}

// Parked says whether the file is parked.
func (f *File) Parked() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.parked
}

// order renames an ordered form into place.
func (f *File) order(o Order) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.parked {
		return fmt.Errorf("order upstream %s: %w", o.Host, ErrNotParked)
	}
	ssl, binding := "require", "require"
	if o.Insecure {
		ssl, binding = "disable", "disable"
	}
	timeout := o.Timeout
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	if o.HostAddr == "" && !strings.HasPrefix(o.Host, "/") {
		return fmt.Errorf("order upstream %s: no address", o.Host)
	}
	if o.AppName == "" || o.User == "" || o.Port <= 0 {
		return fmt.Errorf("order upstream %s: name, user and port are needed", o.Host)
	}
	err := f.write([][2]string{
		{"host", o.Host},
		{"hostaddr", o.HostAddr},
		{"port", strconv.Itoa(o.Port)},
		{"user", o.User},
		{"password", o.Password},
		{"application_name", o.AppName},
		{"sslmode", ssl},
		{"channel_binding", binding},
		{"connect_timeout", strconv.Itoa(max(2, int(timeout/time.Second)))},
		{"tcp_user_timeout", strconv.FormatInt(timeout.Milliseconds(), 10)},
	})
	if err != nil {
		return fmt.Errorf("order upstream %s: %w", o.Host, err)
	}
	f.parked = false
	if f.opt.Parking != nil {
		f.opt.Parking.Release()
	}
	return nil
}

// write renders our group with every option that has a default in environment or home, and renames it into place.
func (f *File) write(group [][2]string) error {
	none := filepath.Join(f.opt.ParkingDir, "none") // an empty path still means the home directory's
	group = append(group, [2]string{"passfile", none}, [2]string{"options", ""}, [2]string{"gssencmode", "disable"},
		[2]string{"target_session_attrs", "any"}, [2]string{"sslrootcert", none}, [2]string{"sslcert", none},
		[2]string{"sslkey", none}, [2]string{"sslcrl", none})
	var b strings.Builder
	b.WriteString("[" + Service + "]\n")
	for _, kv := range group {
		if err := checkValue(kv[0], kv[1]); err != nil {
			return err
		}
		b.WriteString(kv[0] + "=" + kv[1] + "\n")
	}
	others, err := f.others()
	if err != nil {
		return err
	}
	b.WriteString(others)
	// No fsync: the file is written again before every start of Postgres.
	if err := durable.Replace(f.opt.Path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("write upstream file: %w", err)
	}
	return nil
}

// checkValue refuses what a service file cannot carry: it has no quoting.
func checkValue(key, v string) error {
	if strings.ContainsAny(v, "\n\r\x00") || strings.TrimSpace(v) != v {
		return fmt.Errorf("write upstream file: %s holds a line break or begins or ends in space", key)
	}
	if len(key)+len(v)+1 > maxLine {
		return fmt.Errorf("write upstream file: %s is longer than libpq reads", key)
	}
	return nil
}

// others is the text of the user's own groups but for one named like ours.
func (f *File) others() (string, error) {
	if f.opt.UserFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(f.opt.UserFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read user's service file: %w", err)
	}
	return otherGroups(string(text)), nil
}

// libpqSpace is what libpq takes for space. With Unicode's idea of it a line would begin a group for us and be an error
// inside our own group for libpq.
const libpqSpace = " \t\n\v\f\r"

func otherGroups(text string) string {
	var b strings.Builder
	keep := false
	for line := range strings.Lines(text) {
		if t := strings.Trim(line, libpqSpace); strings.HasPrefix(t, "[") {
			// libpq reads the line that ends our group, and gives up at one that is too long.
			keep = !strings.HasPrefix(t, "["+Service+"]") && len(line) < maxLine
		}
		if keep {
			b.WriteString(strings.TrimRight(line, "\r\n") + "\n")
		}
	}
	return b.String()
}

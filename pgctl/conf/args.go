// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"strings"
)

// Args is what the user's arguments after "postgres" say.
type Args struct {
	Keep     []string  // the arguments to pass on: all but those about file locations
	Settings []Setting // every setting they make, in order
	// File locations that the user chose; empty when not given.
	DataDir, ConfigFile, HBAFile, IdentFile string
}

// shortFlags maps the flags of postgres with a value to the setting they stand for; an empty name stands for
// a flag that sets nothing we look at.
var shortFlags = map[byte]string{
	'B': "shared_buffers", 'd': "", 'h': "listen_addresses", 'k': "unix_socket_directories",
	'N': "max_connections", 'p': "port", 'S': "work_mem", 'f': "", 't': "", 'W': "", 'C': "", 'r': "",
}

// ParseArgs reads the arguments of the server. A managed setting among them is refused: the command line wins
// over everything else, so it could never be changed again (PROTOCOL 12.1).
func ParseArgs(args []string) (Args, error) {
	var out Args
	for i := 0; i < len(args); i++ {
		used, err := out.take(args[i:])
		if err != nil {
			return Args{}, err
		}
		i += used - 1
	}
	for _, s := range out.Settings {
		if IsManaged(s.Name) {
			return Args{}, fmt.Errorf("read server arguments: %s is managed by pgquorum and cannot be set there", s.Name)
		}
		if s.Name == "wal_level" && strings.EqualFold(s.Value, "minimal") {
			return Args{}, fmt.Errorf("read server arguments: wal_level=minimal allows no standby")
		}
	}
	return out, nil
}

func (a *Args) take(args []string) (int, error) {
	arg := args[0]
	if strings.HasPrefix(arg, "--") && len(arg) > 2 {
		name, value, _ := strings.Cut(arg[2:], "=")
		return 1, a.set(name, value, args[:1])
	}
	if len(arg) < 2 || arg[0] != '-' {
		return 0, fmt.Errorf("read server arguments: unexpected %q", arg)
	}
	flag := arg[1]
	name, short := shortFlags[flag]
	if flag != 'c' && flag != 'D' && !short {
		if flag == 'F' {
			return 0, fmt.Errorf("read server arguments: -F turns fsync off, which is managed by pgquorum")
		}
		a.Keep = append(a.Keep, arg) // a flag without a value, such as -e or -l
		return 1, nil
	}
	value, used := arg[2:], 1
	if value == "" {
		if len(args) < 2 {
			return 0, fmt.Errorf("read server arguments: %s needs a value", arg)
		}
		value, used = args[1], 2
	}
	switch {
	case flag == 'D':
		a.DataDir = value
		return used, nil
	case flag == 'c':
		n, v, ok := strings.Cut(value, "=")
		if !ok {
			return 0, fmt.Errorf("read server arguments: -c %s needs a value", value)
		}
		return used, a.set(n, v, args[:used])
	case name != "":
		a.Settings = append(a.Settings, Setting{Name: name, Value: value})
	}
	a.Keep = append(a.Keep, args[:used]...)
	return used, nil
}

// set takes name=value as postgres does: dashes in the name mean underscores.
func (a *Args) set(name, value string, keep []string) error {
	name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "-", "_"))
	value = strings.TrimSpace(value)
	switch name {
	case "config_file":
		a.ConfigFile = value
	case "hba_file":
		a.HBAFile = value
	case "ident_file":
		a.IdentFile = value
	case "data_directory":
		a.DataDir = value
	default:
		a.Settings = append(a.Settings, Setting{Name: name, Value: value})
		a.Keep = append(a.Keep, keep...)
	}
	return nil
}

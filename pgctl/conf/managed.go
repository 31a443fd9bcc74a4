// SPDX-License-Identifier: Apache-2.0

package conf

import (
	"fmt"
	"sort"
	"strings"
)

// NobodyName is the standby name that a node lists while it is no primary: it exists nowhere, so that an
// unwanted primary can acknowledge nothing (PROTOCOL 3.1.e).
const NobodyName = "pgquorum_nobody"

// managedNames are the settings that a user may not set. Their values are in the managed file, or they are
// ours on the command line (the four file locations).
var managedNames = map[string]bool{
	"synchronous_standby_names": true, "synchronous_commit": true,
	"restart_after_crash": true, "hot_standby": true, "wal_log_hints": true,
	"fsync": true, "full_page_writes": true,
	"recovery_target_timeline": true, "recovery_target": true, "recovery_target_name": true,
	"recovery_target_time": true, "recovery_target_xid": true, "recovery_target_lsn": true,
	"recovery_target_action": true, "recovery_target_inclusive": true,
	"restore_command": true, "recovery_end_command": true, "recovery_min_apply_delay": true,
	"promote_trigger_file": true,
	"primary_conninfo":     true, "primary_slot_name": true,
	"config_file": true, "hba_file": true, "ident_file": true, "data_directory": true,
	"zero_damaged_pages": false, // listed to say that it was thought of: it is the user's own risk
}

// floorNames are the user's own, but not below what failover needs. They are never stripped; the managed
// file overrides a value that is too low.
var floorNames = []string{"max_wal_senders", "max_replication_slots"}

// IsManaged says whether a setting is not the user's to set.
func IsManaged(name string) bool { return managedNames[strings.ToLower(name)] }

// ManagedNames lists the managed settings in alphabetical order, for documentation.
func ManagedNames() []string {
	var out []string
	for n, yes := range managedNames {
		if yes {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out
}

// SyncNames renders synchronous_standby_names. With no names and k = 0 it is empty, the one state in which
// nobody is waited for (PROTOCOL 3.1.e); anything else must be a real quorum.
func SyncNames(names []string, k int) (string, error) {
	if k == 0 && len(names) == 0 {
		return "", nil
	}
	if k < 1 || k > len(names) {
		return "", fmt.Errorf("render synchronous_standby_names: %d of %d names", k, len(names))
	}
	quoted := make([]string, len(names))
	for i, n := range names {
		if n == "" || len(n) > 63 || strings.ContainsAny(n, "\n\r\x00") {
			return "", fmt.Errorf("render synchronous_standby_names: bad name %q", n)
		}
		quoted[i] = `"` + strings.ReplaceAll(n, `"`, `""`) + `"`
	}
	return fmt.Sprintf("ANY %d (%s)", k, strings.Join(quoted, ", ")), nil
}

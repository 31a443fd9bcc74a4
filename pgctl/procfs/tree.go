// SPDX-License-Identifier: Apache-2.0

package procfs

// List reads every process, without titles.
func List() ([]Process, error) {
	r := NewReader()
	if err := r.list(); err != nil {
		return nil, err
	}
	all := make([]Process, 0, len(r.pids))
	for _, pid := range r.pids {
		p, err := r.stat(pid)
		if err != nil {
			return nil, err
		}
		if p.PID != 0 {
			all = append(all, p)
		}
	}
	return all, nil
}

// ChildrenOf returns the processes of all whose parent is pid.
func ChildrenOf(all []Process, pid int) []Process {
	var out []Process
	for _, p := range all {
		if p.Parent == pid {
			out = append(out, p)
		}
	}
	return out
}

// Descendants returns the processes of all that descend from root, root itself excluded.
func Descendants(all []Process, root int) []Process {
	children := make(map[int][]Process, len(all))
	for _, p := range all {
		children[p.Parent] = append(children[p.Parent], p)
	}
	out := append([]Process(nil), children[root]...)
	delete(children, root)
	for i := 0; i < len(out); i++ {
		out = append(out, children[out[i].PID]...)
		delete(children, out[i].PID) // a torn snapshot may hold a cycle
	}
	return out
}

// SPDX-License-Identifier: Apache-2.0

package docker

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// IP is the container's address on its networks; the first, if there are several.
func (c Container) IP(ctx context.Context) (string, error) {
	res, err := Command(ctx, "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", c.ID)
	if err != nil {
		return "", err
	}
	if ips := strings.Fields(res.Stdout); len(ips) > 0 {
		return ips[0], nil
	}
	return "", fmt.Errorf("find the address of %s: it has none", c.ID)
}

// Cut drops all packets between this container and the peers that come from or go to a port, in both directions and of
// connections that are there, and proves it: a dial that was answered before is not answered any more in either
// direction, while the port alive still is. Mend ends it, and so does the end of the container.
func (c Container) Cut(ctx context.Context, port, alive int, peers ...Container) (mend func(context.Context) error, err error) {
	var ips []string
	for _, p := range peers {
		ip, err := p.IP(ctx)
		if err != nil {
			return nil, err
		}
		ips = append(ips, ip)
	}
	if err := c.reach(ctx, port, true, peers, ips); err != nil {
		return nil, fmt.Errorf("before the cut: %w", err)
	}
	s, err := c.State(ctx)
	if err != nil {
		return nil, err
	}
	if err := firewall(ctx, s.Pid, "-A", port, ips); err != nil {
		return nil, err
	}
	mend = func(ctx context.Context) error {
		now, err := c.State(ctx)
		if err != nil || now.Pid != s.Pid { // another life of the container has a network of its own, without the rules
			return err
		}
		if err := firewall(ctx, s.Pid, "-D", port, ips); err != nil {
			return err
		}
		var up []Container
		var addrs []string
		for _, p := range peers { // those that run, which may have other addresses by now
			if s, err := p.State(ctx); err == nil && s.Running {
				ip, err := p.IP(ctx)
				if err != nil {
					return err
				}
				up, addrs = append(up, p), append(addrs, ip)
			}
		}
		return c.reach(ctx, port, true, up, addrs)
	}
	for _, want := range []struct {
		port int
		open bool
	}{{port, false}, {alive, true}} {
		if err := c.reach(ctx, want.port, want.open, peers, ips); err != nil {
			return mend, fmt.Errorf("after the cut: %w", err)
		}
	}
	return mend, nil
}

// firewall adds or deletes the rules in the network namespace of a process. It is the host's iptables: images have none.
func firewall(ctx context.Context, pid int, op string, port int, ips []string) error {
	var lines []string
	for _, ip := range ips {
		for _, chain := range []string{"INPUT -s ", "OUTPUT -d "} {
			for _, side := range []string{" --sport ", " --dport "} {
				lines = append(lines, "iptables -w "+op+" "+chain+ip+" -p tcp"+side+strconv.Itoa(port)+" -j DROP")
			}
		}
	}
	_, err := Run(ctx, nil, "nsenter", "-t", strconv.Itoa(pid), "-n", "sh", "-ec", strings.Join(lines, "\n"))
	if err != nil {
		return fmt.Errorf("cut with iptables, as root: %w", err)
	}
	return nil
}

// reach checks that the port is answered from here and from each peer, or that it is not.
func (c Container) reach(ctx context.Context, port int, open bool, peers []Container, ips []string) error {
	own, err := c.IP(ctx)
	if err != nil {
		return err
	}
	for i, p := range peers {
		for _, d := range []struct {
			from Container
			to   string
		}{{c, ips[i]}, {p, own}} {
			res, err := d.from.Exec(ctx, "timeout", "0.5", "bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", d.to, port))
			if err != nil {
				return err
			}
			// 124: nobody answered, which is a cut. 1: refused, which is an answer.
			if answered := res.Code != 124; answered != open {
				return fmt.Errorf("port %d of %s: answered %t (exit code %d %s), want %t", port, d.to, answered, res.Code, strings.TrimSpace(res.Stderr), open)
			}
		}
	}
	return nil
}

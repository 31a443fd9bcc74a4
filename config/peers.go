// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pgquorum/pgquorum/cluster"
)

const (
	peersName = "PGQUORUM_PEERS"
	nodeName  = "PGQUORUM_NODE"
	maxPeers  = 9
	nameText  = "must be 1 to 63 lower-case letters, digits and dashes, with no dash at either end"
)

var (
	nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	hostRule = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?$`)
	// randomHost is the hostname that Docker gives a container that was given none: the start of its id.
	randomHost = regexp.MustCompile(`^[0-9a-f]{12}$`)
)

// peers reads the list of members and finds this node in it.
func (p *parser) peers() {
	if p.hasProblem(peersName) {
		return
	}
	if len(p.cfg.Peers) == 0 {
		p.fail(peersName, "for example pg1,pg2,pg3", "lists nobody")
		return
	}
	ok := true
	for _, entry := range p.cfg.Peers {
		peer, good := p.peer(entry)
		ok = ok && good
		if !good {
			continue
		}
		if i := slices.IndexFunc(p.cfg.Members, func(q Peer) bool { return q.Name == peer.Name }); i >= 0 {
			p.fail(peersName, "name each node once", "lists %s twice (%s and %s)", peer.Name, p.cfg.Peers[i], entry)
			ok = false
		}
		p.cfg.Members = append(p.cfg.Members, peer)
	}
	if n := len(p.cfg.Peers); n > maxPeers {
		p.fail(peersName, "", "lists %d nodes; 1 to %d are possible", n, maxPeers)
		ok = false
	}
	if ok {
		p.self()
		p.advice()
	}
}

// peer reads host[:port].
func (p *parser) peer(entry string) (Peer, bool) {
	host, port := strings.ToLower(entry), p.cfg.RaftPort
	if addr, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil && addr.Is6() {
		host = strings.Trim(host, "[]")
	} else if i := strings.LastIndexByte(host, ':'); i >= 0 {
		n, err := strconv.Atoi(host[i+1:])
		if err != nil || n < 1 || n > 65535 {
			p.fail(peersName, "", "%q has no port between 1 and 65535 after the colon", entry)
			return Peer{}, false
		}
		host, port = strings.Trim(host[:i], "[]"), n
	}
	addr, err := netip.ParseAddr(host)
	isAddr := err == nil
	switch {
	case host == "localhost" || strings.HasPrefix(host, "localhost.") || (isAddr && (addr.IsLoopback() || addr.IsUnspecified())):
		p.fail(peersName, "use names under which the nodes reach each other, such as the hostnames of the containers",
			"%q means another machine on every node", entry)
		return Peer{}, false
	case isAddr:
		p.warn("PGQUORUM_PEERS: %s is an address; containers get new ones, so prefer names", entry)
		return Peer{Name: addressName(addr), Host: host, Port: port}, true
	case !hostRule.MatchString(host):
		p.fail(peersName, "", "%q is not host or host:port", entry)
		return Peer{}, false
	}
	label := firstLabel(host)
	if !nameRule.MatchString(label) {
		p.fail(peersName, "", "%q: a node's name %s", entry, nameText)
		return Peer{}, false
	}
	return Peer{Name: cluster.NodeName(label), Host: strings.TrimSuffix(host, "."), Port: port}, true
}

func firstLabel(host string) string {
	label, _, _ := strings.Cut(strings.ToLower(host), ".")
	return label
}

// addressName makes a node name out of an address, for lists without names.
func addressName(addr netip.Addr) cluster.NodeName {
	name := strings.NewReplacer(".", "-", ":", "-").Replace(addr.WithZone("").StringExpanded())
	return cluster.NodeName(name)
}

// self finds this node in the list.
func (p *parser) self() {
	given := p.cfg.Node != ""
	name := p.cfg.Node
	if !given {
		name = firstLabel(p.hostname)
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		name = string(addressName(addr))
	}
	name = firstLabel(name)
	i := slices.IndexFunc(p.cfg.Members, func(q Peer) bool { return string(q.Name) == name })
	if i < 0 && !given && p.cfg.Advertise != "" {
		i = slices.IndexFunc(p.cfg.Members, func(q Peer) bool { return strings.EqualFold(q.Host, p.cfg.Advertise) })
	}
	list := strings.Join(p.cfg.Peers, ", ")
	switch {
	case i < 0 && !given && randomHost.MatchString(p.hostname):
		p.fail(nodeName, "set hostname: in the compose file (docker run --hostname), or PGQUORUM_NODE, to one of: "+list,
			"is not set, and the hostname %s is a random one that Docker made", p.hostname)
		return
	case i < 0 && !given:
		p.fail(nodeName, "set hostname: (docker run --hostname) or PGQUORUM_NODE to this node's name in the list, or add it",
			"is not set, and the hostname %s is not in PGQUORUM_PEERS (%s)", p.hostname, list)
		return
	case i < 0 && !nameRule.MatchString(name):
		p.fail(nodeName, "", "%s", nameText)
		return
	case i < 0:
		p.fail(nodeName, "set it to this node's name in the list, or add it there", "is not in PGQUORUM_PEERS (%s)", list)
		return
	}
	p.cfg.Self = p.cfg.Members[i]
	p.cfg.Node = string(p.cfg.Self.Name)
	if p.cfg.Advertise == "" {
		p.cfg.Advertise = p.cfg.Self.Host
	}
	if p.set["PGQUORUM_RAFT_PORT"] == "" {
		p.cfg.RaftPort = p.cfg.Self.Port
	}
}

func (p *parser) advice() {
	switch n := len(p.cfg.Members); {
	case n == 2:
		p.warn("PGQUORUM_PEERS lists 2 nodes: the loss of either stops writes; use 3")
	case n%2 == 0:
		p.warn("PGQUORUM_PEERS lists %d nodes: they survive no more losses than %d would", n, n-1)
	}
}

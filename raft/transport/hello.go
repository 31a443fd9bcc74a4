// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"

	"github.com/pgquorum/pgquorum/cluster"
)

// protocolVersion changes when an old node could misread a new one.
const protocolVersion = 1

// Hello is the first frame in both directions of every connection (PROTOCOL 2). The owner fills in what it knows of
// its node; the fields at the end are the transport's, which sets them for each connection.
type Hello struct {
	Name       cluster.NodeName    `json:"name"`
	Cluster    string              `json:"cluster"` // cluster id; empty before there is one
	Generation uint64              `json:"generation"`
	Node       cluster.Incarnation `json:"incarnation"`
	Boot       cluster.Boot        `json:"boot"`
	Boots      []cluster.Boot      `json:"boots"`        // of the volume, since the last one that it knew to be registered
	HostBootID string              `json:"host_boot_id"` // of the host's kernel
	PID1       bool                `json:"pid1"`         // the sender is PID 1 of a PID namespace of its own
	Version    string              `json:"version"`      // of the product

	Protocol  int    `json:"protocol"`
	HeldTwice bool   `json:"held_twice"` // the sender's watchdog holds this connection's socket too (6.2.b)
	Local     string `json:"local"`      // the sender's view of this connection's two ends
	Remote    string `json:"remote"`
}

func parseHello(b []byte) (Hello, error) {
	var h Hello
	if err := json.Unmarshal(b, &h); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	if h.Protocol != protocolVersion {
		return Hello{}, fmt.Errorf("read hello: protocol version %d, this node speaks %d", h.Protocol, protocolVersion)
	}
	if h.Name == "" {
		return Hello{}, fmt.Errorf("read hello: no node name")
	}
	return h, nil
}

// addressesAgree compares both ends' views. A proxy or a translated address in between can die alone, so that the
// end of such a link says nothing about the node (PROTOCOL 6.3).
func addressesAgree(c net.Conn, peer Hello) bool {
	return sameAddress(c.LocalAddr().String(), peer.Remote) && sameAddress(c.RemoteAddr().String(), peer.Local)
}

func sameAddress(a, b string) bool {
	x, errX := netip.ParseAddrPort(a)
	y, errY := netip.ParseAddrPort(b)
	if errX != nil || errY != nil {
		return false
	}
	return x.Port() == y.Port() && x.Addr().Unmap().WithZone("") == y.Addr().Unmap().WithZone("")
}

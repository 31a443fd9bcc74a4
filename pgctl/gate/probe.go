// SPDX-License-Identifier: Apache-2.0

package gate

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// answer is what a server said to a start-up packet.
type answer struct {
	kind    byte // 'R' asked for a password or let in, 'E' refused
	code    string
	message string
}

// ProbeRole is the role that the probe logs in as. It does not exist. The open file must ask it for a password in a
// line before any of the user's, ProbeLine, and the closed file must reject it: otherwise a user's file without a
// line for unix sockets would look closed while it is open.
const (
	ProbeRole = "pgquorum_probe"
	ProbeLine = "local all " + ProbeRole + " scram-sha-256\n"
)

const (
	codeRejected   = "28000" // a line of pg_hba.conf rejects it, or none lets it in
	codeFull       = "53300" // no slot is free: said before pg_hba.conf is looked at
	maxProbeAnswer = 64 << 10
)

// rejectedByHBA says whether this is the refusal of our closed file. A missing role or a wrong password has other
// codes or comes after the file let the connection through.
func (a answer) rejectedByHBA() bool {
	return a.kind == 'E' && a.code == codeRejected && strings.Contains(a.message, "pg_hba.conf")
}

// probe connects as a user's role would, up to the point where the server has looked into pg_hba.conf, and hangs up.
func probe(ctx context.Context, socket, user, database string, limit time.Duration) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return answer{}, fmt.Errorf("probe gate: %w", err)
	}
	defer c.Close()
	end, _ := ctx.Deadline()
	if err := c.SetDeadline(end); err != nil {
		return answer{}, fmt.Errorf("probe gate: %w", err)
	}
	if _, err := c.Write(startup(user, database)); err != nil {
		return answer{}, fmt.Errorf("probe gate: %w", err)
	}
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return answer{}, fmt.Errorf("probe gate: %w", err)
	}
	n := int(binary.BigEndian.Uint32(head[1:])) - 4
	if n < 0 || n > maxProbeAnswer {
		return answer{}, fmt.Errorf("probe gate: answer of %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c, body); err != nil {
		return answer{}, fmt.Errorf("probe gate: %w", err)
	}
	a := answer{kind: head[0]}
	if a.kind == 'E' {
		a.code, a.message = parseError(body)
	}
	return a, nil
}

func startup(user, database string) []byte {
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...)
}

// parseError takes SQLSTATE and text from the fields of an ErrorResponse.
func parseError(b []byte) (code, message string) {
	for len(b) > 1 {
		field := b[0]
		end := strings.IndexByte(string(b[1:]), 0)
		if end < 0 {
			return code, message
		}
		v := string(b[1 : 1+end])
		switch field {
		case 'C':
			code = v
		case 'M':
			message = v
		}
		b = b[end+2:]
	}
	return code, message
}

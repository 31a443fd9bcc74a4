// SPDX-License-Identifier: Apache-2.0

// Package transport keeps a mutually authenticated TCP link to every other node's PID 1, carries frames over it, and
// turns the end of a link into evidence (PROTOCOL 2, 6).
//
// Each node has one port. There is one connection per dialling direction: what I send goes over the link that I
// dialled, what you send over yours. A link that was accepted is used for sending only while there is no dialled one.
//
// A link lives like this: TCP, the Holder is asked to hold the socket too, TLS 1.3 with certificates of both sides
// (the dialler insists on the name it dialled), one Hello frame each way, Options.Accept judges the peer's Hello,
// LinkUp; then frames; then LinkDown. Hello frames may come again at any time: "this link is held twice" is sent only
// once the Holder has confirmed it, and is withdrawn when it is no longer so.
//
// What the end of a link says (Cause) is taken from what the kernel said to the raw socket, below TLS:
//
//   - EOF or Reset: the kernel of the other side closed it, unasked by any code there: our own code always says a TLS
//     close first. Only this, on a link that we dialled, is followed by an immediate redial of the same address and
//     port without a look-up; a refusal there (Redial Refused) or another boot (OtherBoot) is evidence of death.
//   - Closed, Goodbye: the other side's code closed it on purpose. Timeout: silence. Local: we closed it. Error:
//     anything else. None of these is ever evidence.
//
// A silent link is closed after three seconds, which is a time-out and nothing more. Nobody waits for a slow peer:
// queues are bounded, and a frame that does not fit is dropped and counted.
//
// An idle node should cost next to nothing, and what costs is waking up: a frame that is in no hurry leaves with the next
// one (SendLater, Flush), one timer serves the pings of all links, and reads and writes do not trouble Go's scheduler.
//
// Files: frame.go the framing, hello.go the Hello, link.go one connection, writer.go its sending half, witness.go the
// socket below TLS, dial.go the loops that keep links up and the redial, why.go says for people why there is no link,
// transport.go everything together.
package transport

// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"io"
	"os"
	"sync"
	"time"
)

// pipes connects a child's standard descriptors. Files are handed over as they are; anything else is copied by a
// goroutine of ours.
type pipes struct {
	theirs [3]*os.File
	close  []*os.File // our copies of their ends
	ours   []*os.File
	copies []func()
	wg     sync.WaitGroup
}

func openPipes(spec Spec) (p *pipes, err error) {
	p = &pipes{}
	defer func() {
		if err != nil {
			p.closeTheirs()
			p.abort()
		}
	}()
	if p.theirs[0], err = p.input(spec.Stdin); err != nil {
		return p, err
	}
	if p.theirs[1], err = p.output(spec.Stdout); err != nil {
		return p, err
	}
	if spec.Stderr != nil && spec.Stderr == spec.Stdout {
		p.theirs[2] = p.theirs[1]
		return p, nil
	}
	p.theirs[2], err = p.output(spec.Stderr)
	return p, err
}

func (p *pipes) input(r io.Reader) (*os.File, error) {
	switch v := r.(type) {
	case nil:
		return p.null(os.O_RDONLY)
	case *os.File:
		return v, nil
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.close, p.ours = append(p.close, rd), append(p.ours, wr)
	// Not waited for: a reader that never ends must not hold up the exit of a child that no longer reads.
	p.copies = append(p.copies, func() {
		go func() { _, _ = io.Copy(wr, r); _ = wr.Close() }()
	})
	return rd, nil
}

func (p *pipes) output(w io.Writer) (*os.File, error) {
	switch v := w.(type) {
	case nil:
		return p.null(os.O_WRONLY)
	case *os.File:
		return v, nil
	}
	rd, wr, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.close, p.ours = append(p.close, wr), append(p.ours, rd)
	p.copies = append(p.copies, func() {
		p.wg.Go(func() { _, _ = io.Copy(w, rd) })
	})
	return wr, nil
}

func (p *pipes) null(flag int) (*os.File, error) {
	f, err := os.OpenFile(os.DevNull, flag, 0)
	if err == nil {
		p.close = append(p.close, f)
	}
	return f, err
}

func (p *pipes) closeTheirs() {
	for _, f := range p.close {
		_ = f.Close()
	}
}

func (p *pipes) run() {
	for _, f := range p.copies {
		f()
	}
}

func (p *pipes) abort() {
	for _, f := range p.ours {
		_ = f.Close()
	}
}

// drain waits until the output was read to its end, but not for ever: a grandchild may have inherited the pipe.
func (p *pipes) drain(limit time.Duration) {
	done := make(chan struct{})
	go func() { p.wg.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(limit):
	}
	p.abort()
	<-done
}

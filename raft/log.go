// SPDX-License-Identifier: Apache-2.0

package raft

import (
	"context"
	"fmt"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// raftLogger gives raft's own messages to slog. What raft calls info happens at every election and is debug to us:
// the loop logs changes of leadership itself, once.
type raftLogger struct{ l *slog.Logger }

func (r raftLogger) log(level slog.Level, text func() string) {
	if r.l.Enabled(context.Background(), level) {
		r.l.Log(context.Background(), level, "raft library", "detail", text())
	}
}

func (r raftLogger) print(level slog.Level, v []any) {
	r.log(level, func() string { return fmt.Sprint(v...) })
}

func (r raftLogger) printf(level slog.Level, f string, v []any) {
	r.log(level, func() string { return fmt.Sprintf(f, v...) })
}

func (r raftLogger) Debug(v ...any)              { r.print(slog.LevelDebug, v) }
func (r raftLogger) Debugf(f string, v ...any)   { r.printf(slog.LevelDebug, f, v) }
func (r raftLogger) Info(v ...any)               { r.print(slog.LevelDebug, v) }
func (r raftLogger) Infof(f string, v ...any)    { r.printf(slog.LevelDebug, f, v) }
func (r raftLogger) Warning(v ...any)            { r.print(slog.LevelWarn, v) }
func (r raftLogger) Warningf(f string, v ...any) { r.printf(slog.LevelWarn, f, v) }
func (r raftLogger) Error(v ...any)              { r.print(slog.LevelError, v) }
func (r raftLogger) Errorf(f string, v ...any)   { r.printf(slog.LevelError, f, v) }

// A broken invariant of raft is a panic: nothing may go on after it, and the process' death is the fence.
func (r raftLogger) Fatal(v ...any)            { r.Panic(v...) }
func (r raftLogger) Fatalf(f string, v ...any) { r.Panicf(f, v...) }
func (r raftLogger) Panic(v ...any)            { panic("raft: " + fmt.Sprint(v...)) }
func (r raftLogger) Panicf(f string, v ...any) { panic("raft: " + fmt.Sprintf(f, v...)) }

// zapCore is as much of zap as etcd's WAL needs, on top of slog.
type zapCore struct {
	l      *slog.Logger
	fields []zapcore.Field
}

func newZap(l *slog.Logger) *zap.Logger { return zap.New(zapCore{l: l}) }

func zapLevel(l zapcore.Level) slog.Level {
	switch {
	case l >= zapcore.ErrorLevel:
		return slog.LevelError
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelDebug
}

// Enabled implements zapcore.LevelEnabler.
func (c zapCore) Enabled(l zapcore.Level) bool { return c.l.Enabled(context.Background(), zapLevel(l)) }

// With implements zapcore.Core.
func (c zapCore) With(f []zapcore.Field) zapcore.Core {
	return zapCore{l: c.l, fields: append(c.fields[:len(c.fields):len(c.fields)], f...)}
}

// Check implements zapcore.Core.
func (c zapCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c zapCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range c.fields {
		f.AddTo(enc)
	}
	for _, f := range fields {
		f.AddTo(enc)
	}
	c.l.Log(context.Background(), zapLevel(e.Level), "write-ahead log", "detail", e.Message, "fields", enc.Fields)
	return nil
}

// Sync implements zapcore.Core.
func (zapCore) Sync() error { return nil }

// SPDX-License-Identifier: Apache-2.0

// Package config is the only room that reads the environment. It turns environment and command line into one plain
// Config, once, at the start; everything below gets values handed down.
//
// Start with the Config struct (config.go): its tags are the whole table of variables, with default and
// documentation, and docs/configuration.md is generated from them. Parse (parse.go) collects every mistake and
// reports all of them together, because a container that names one mistake per start is a long evening.
//
// Parse is pure: environment, arguments, hostname and the reader of secret files are arguments.
package config

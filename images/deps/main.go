// SPDX-License-Identifier: Apache-2.0

// Command deps does nothing. The Dockerfile builds it before it copies the source, so that the compiled dependencies
// stay in a layer of their own and a change of our code compiles only our code. A dependency missing here costs build
// time, nothing else.
package main

import (
	_ "net/http"

	_ "github.com/jackc/pgx/v5"
	_ "github.com/lmittmann/tint"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	_ "go.etcd.io/etcd/server/v3/storage/wal"
	_ "go.etcd.io/raft/v3"
	_ "golang.org/x/sys/unix"
)

func main() {}

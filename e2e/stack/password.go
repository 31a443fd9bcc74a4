// SPDX-License-Identifier: Apache-2.0

package stack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// CheckPassword logs in to the primary. Volumes keep the password that they were made with, whatever the file says now.
func (s *Stack) CheckPassword(ctx context.Context) error {
	dsn, err := s.DSN()
	if err != nil {
		return err
	}
	c, err := pgx.Connect(ctx, dsn)
	if err == nil {
		return c.Close(ctx)
	}
	const wrong = "28P01" // invalid_password
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == wrong {
		return fmt.Errorf("log in to project %s: the password in %s is not that of its volumes: another checkout made them, or the file was made anew. "+
			"Nothing was changed. Put the old file back, or delete the data with make destroy", s.opt.Project, filepath.Join(s.opt.Secrets, "postgres_password"))
	}
	return fmt.Errorf("log in to project %s: %w", s.opt.Project, err)
}

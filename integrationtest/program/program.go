// Package program starts the servers that the repository's scripts fetch and run, for tests.
package program

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 3 * time.Minute // a cold start of Keycloak on two busy cores takes about one
	stopTimeout  = 15 * time.Second
)

// ErrUnavailable means that this machine lacks what a program needs; the error that wraps it says
// what is missing.
var ErrUnavailable = errors.New("not available on this machine")

// Script is a script below scripts that runs a server on 127.0.0.1:
//
//	check     fail, and say so, if a prerequisite is missing
//	fetch     prepare the server in the user's cache folder
//	run PORT  become the server
type Script struct {
	Name        string   // such as keycloak.sh
	Ready       string   // the path that returns 200 once the server is ready
	Environment []string // in addition to this process's
}

// Server is a server that was started, or one that somebody else runs.
type Server struct {
	BaseURL string
	stop    func() error // nil for somebody else's
}

// Stop stops the server if Start started it.
func (s *Server) Stop() error {
	if s.stop == nil {
		return nil
	}
	return s.stop()
}

// Required reports whether an unavailable program is an error.
func Required() bool { return os.Getenv("CI") == "true" }

// Require fails the test if err is an error, or skips it if that is an unavailable program that is
// not required.
func Require(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, ErrUnavailable) && !Required() {
		t.Skipf("skipped: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Start starts the server and waits until it is ready. The server outlives ctx; the caller stops
// it.
func (s Script) Start(ctx context.Context) (*Server, error) {
	path, err := find(filepath.Join("scripts", s.Name))
	if err != nil {
		return nil, err
	}
	if output, err := s.command(ctx, path, "check"); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", s.Name, ErrUnavailable, output)
	}
	if output, err := s.command(ctx, path, "fetch"); err != nil {
		return nil, fmt.Errorf("%s fetch: %w: %s", s.Name, err, output)
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	return s.run(ctx, path, port)
}

// command returns the output as one line.
func (s Script) command(ctx context.Context, path, verb string) (string, error) {
	cmd := exec.CommandContext(ctx, path, verb)
	cmd.Env = append(os.Environ(), s.Environment...)
	output, err := cmd.CombinedOutput()
	return strings.Join(strings.Fields(string(output)), " "), err
}

func (s Script) run(ctx context.Context, path string, port int) (*Server, error) {
	log, err := os.CreateTemp("", s.Name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(path, "run", strconv.Itoa(port)) // becomes the server itself
	cmd.Env = append(os.Environ(), s.Environment...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = DieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.Remove(log.Name()))
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit status of a stopped server means nothing
		close(exited)
	}()
	server := &Server{BaseURL: "http://127.0.0.1:" + strconv.Itoa(port)}
	server.stop = func() error {
		defer os.Remove(log.Name())
		return stop(cmd.Process, exited)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := waitReady(ctx, server.BaseURL+s.Ready, exited); err != nil {
		output, _ := os.ReadFile(log.Name())
		end := output[max(0, len(output)-2000):]
		err = fmt.Errorf("%s: %w; the end of its log:\n%s", s.Name, err, end)
		return nil, errors.Join(err, server.stop())
	}
	return server, nil
}

func stop(process *os.Process, exited <-chan struct{}) error {
	_ = process.Signal(syscall.SIGTERM) // it may have exited on its own
	select {
	case <-exited:
		return nil
	case <-time.After(stopTimeout):
		_ = process.Kill()
		<-exited
		return errors.New("a server did not stop in time and was killed")
	}
}

func waitReady(ctx context.Context, readyURL string, exited <-chan struct{}) error {
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, readyURL, nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-exited:
			return errors.New("exited before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", ctx.Err())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// find searches for a file from the working directory upwards; a test runs in its package's
// directory.
func find(name string) (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no %s above the working directory", name)
		}
		dir = parent
	}
}

// FreePort returns a port that is free now, as is its successor: some servers take both. It is a
// random one below those of outgoing connections.
func FreePort() (int, error) {
	const first, count = 20000, 12000
	for range 100 {
		if port := first + mathrand.N(count); isFree(port) && isFree(port+1) {
			return port, nil
		}
	}
	return 0, errors.New("no free port found")
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	return err == nil && listener.Close() == nil
}

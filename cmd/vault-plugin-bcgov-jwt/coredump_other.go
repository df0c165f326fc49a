//go:build !linux

package main

// forbidCoreDumps is only possible on Linux.
func forbidCoreDumps() error { return nil }

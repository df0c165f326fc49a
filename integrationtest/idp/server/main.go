// Command server serves the embedded provider, with one realm, and an API that accepts the realm's
// tokens, for demonstrations. Clients are registered through the same admin REST API as at
// Keycloak; integrationtest/keycloak/register does it from the command line.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/idp"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// run serves until ctx is done. Once it listens it prints the URLs as NAME=VALUE lines.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("server", flag.ContinueOnError)
	var (
		addr     = flags.String("addr", "127.0.0.1:0", "the `address`; port 0 is a free one")
		realm    = flags.String("realm", "apigw", "the realm's name")
		issuer   = flags.String("issuer", "", "accept tokens of this issuer `URL`, not the realm's")
		username = flags.String("admin-username", "admin", "the administrator's name")
		password = flags.String("admin-password", "admin", "the administrator's password")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	provider := idp.New(idp.Options{Username: *username, Password: *password, SendDate: true})
	defer provider.Close()
	if err := provider.AddRealm(*realm); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", *addr)
	if err != nil {
		return err
	}
	baseURL := "http://" + listener.Addr().String()
	ownIssuer := baseURL + "/realms/" + *realm
	if *issuer == "" {
		*issuer = ownIssuer
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	client := &http.Client{Timeout: 10 * time.Second, Transport: transport}
	defer client.CloseIdleConnections()
	mux := http.NewServeMux()
	mux.Handle("/headers", idp.NewGateway(*issuer, client, time.Now))
	mux.Handle("/", provider)
	fmt.Fprintf(stdout, "BASE_URL=%s\nISSUER=%s\n", baseURL, ownIssuer)
	fmt.Fprintf(stdout, "TOKEN_ENDPOINT=%s/protocol/openid-connect/token\n", ownIssuer)
	fmt.Fprintf(stdout, "PROTECTED_API=%s/headers\n", baseURL)
	return serve(ctx, listener, mux)
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	stopped := make(chan error, 1)
	go func() {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		stopped <- server.Shutdown(ctx)
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

// Command register registers a client's public key at a Keycloak, or at the embedded provider, as
// the API Services Portal does when a user saves a key there. It reads the key, PEM, from the
// standard input.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader) error {
	flags := flag.NewFlagSet("register", flag.ExitOnError)
	var (
		baseURL  = flags.String("url", "", "the provider's base `URL`, without /realms")
		realm    = flags.String("realm", "apigw", "the realm, created unless it exists")
		clientID = flags.String("client-id", "", "the client's `id`, as in /portal/myapi")
		username = flags.String("username", "admin", "the administrator's name")
		password = flags.String("password", "admin", "the administrator's password")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *baseURL == "" || *clientID == "" {
		return errors.New("-url and -client-id are required")
	}
	publicKey, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	admin := keycloak.NewAdmin(*baseURL, *username, *password)
	defer admin.Close()
	if err := admin.CreateRealm(ctx, *realm); err != nil {
		return err
	}
	return admin.PutClient(ctx, *realm, keycloak.PortalClient(*clientID, string(publicKey)))
}

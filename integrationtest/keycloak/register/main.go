// Command register registers a client's public key at a Keycloak, or at the embedded provider, as
// the API Services Portal does when a user saves a key there. It reads the key, PEM, from the
// standard input, and prints what the portal then shows.
package main

import (
	"context"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"github.com/bcgov/vault-plugin-bcgov-jwt/integrationtest/keycloak"
)

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("register", flag.ExitOnError)
	var (
		issuer   = flags.String("issuer", os.Getenv("ISS"), "the realm's `URL`; default: $ISS")
		clientID = flags.String("client-id", os.Getenv("CID"), "the client's `id`; default: $CID")
		username = flags.String("username", "admin", "the administrator's name")
		password = flags.String("password", "admin", "the administrator's password")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	baseURL, realm, found := strings.Cut(*issuer, "/realms/")
	if !found || *clientID == "" {
		return errors.New("set ISS to the realm's URL and CID to the client's id")
	}
	publicKey, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	if block, _ := pem.Decode(publicKey); block == nil {
		return errors.New("no public key on the standard input; nothing was registered")
	}
	admin := keycloak.NewAdmin(baseURL, *username, *password)
	defer admin.Close()
	if err := admin.CreateRealm(ctx, realm); err != nil {
		return err
	}
	client := keycloak.PortalClient(*clientID, string(publicKey))
	if err := admin.PutClient(ctx, realm, client); err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "Client ID       %s\nIssuer          %s\n"+
		"Token Endpoint  %[2]s/protocol/openid-connect/token\n", *clientID, *issuer)
	return err
}

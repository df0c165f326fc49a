package backend

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
)

// make docs sets it.
var updateDocs = flag.Bool("update-docs", false, "rewrite the generated parts of docs/")

// generated is what stands between two markers in a page: <!-- generated: NAME --> and <!-- end -->.
var generated = regexp.MustCompile(`(?s)(<!-- generated: ([^>]+) -->\n).*?(<!-- end -->)`)

func TestDocs_MatchSchemasAndDiagnoses(t *testing.T) {
	t.Parallel()
	blocks := pathBlocks(t)
	maps.Copy(blocks, diagnosisBlocks())
	for _, page := range []string{"paths.md", "troubleshooting.md"} {
		file := filepath.Join("..", "docs", page)
		old, err := os.ReadFile(file)
		require.NoError(t, err)
		text := generated.ReplaceAllFunc(old, func(match []byte) []byte {
			parts := generated.FindSubmatch(match)
			name := string(parts[2])
			require.Contains(t, blocks, name, "%s: nothing of this name is generated", page)
			block := blocks[name]
			blocks[name] = "used"
			return slices.Concat(parts[1], []byte(block), parts[3])
		})
		if *updateDocs {
			require.NoError(t, os.WriteFile(file, text, 0o600))
			continue
		}
		require.True(t, bytes.Equal(old, text), "docs/%s is stale: run make docs", page)
	}
	for name, block := range blocks {
		require.Equal(t, "used", block, "no page has the generated part %q", name)
	}
}

// pathBlocks returns, by path such as keys/:name, the path's operations, parameters and response.
func pathBlocks(t *testing.T) map[string]string {
	t.Helper()
	m := newMount(t)
	lists, blocks := map[string]string{}, map[string]string{}
	key := m.Route("keys/x").Operations[logical.ReadOperation].(*framework.PathOperation).Responses[200][0].Fields
	for _, served := range m.paths() {
		shown := shownPath(served)
		if list, ok := served.Operations[logical.ListOperation].(*framework.PathOperation); ok {
			lists[shown] = operationRow("LIST", shown, list)
			continue
		}
		blocks[shown] = "| Method | Path | |\n|---|---|---|\n" + lists[path.Dir(shown)] + describePath(served, key)
	}
	return blocks
}

func operationRow(method, path string, operation *framework.PathOperation) string {
	return fmt.Sprintf("| `%s` | `%s` | %s |\n", method, path, operation.Summary)
}

// shownPath returns a path as the docs write it: keys/:name for keys/(?P<name>[^/]+).
func shownPath(path *framework.Path) string {
	shown := regexp.MustCompile(`\(\?P<(\w+)>[^)]*\)`).ReplaceAllString(path.Pattern, ":$1")
	return strings.TrimSuffix(shown, "/?$")
}

// describePath lists a path's parameters and response; for one that returns key, a link.
func describePath(path *framework.Path, key map[string]*framework.FieldSchema) string {
	var b strings.Builder
	fields := map[string]*framework.FieldSchema{}
	var response map[string]*framework.FieldSchema
	for _, o := range []struct {
		operation logical.Operation
		method    string
	}{
		{logical.UpdateOperation, "POST"},
		{logical.PatchOperation, "PATCH"},
		{logical.ReadOperation, "GET"},
		{logical.HeaderOperation, "HEAD"},
		{logical.DeleteOperation, "DELETE"},
	} {
		operation, _ := path.Operations[o.operation].(*framework.PathOperation)
		if operation == nil {
			continue
		}
		b.WriteString(operationRow(o.method, shownPath(path), operation))
		for _, name := range allowedFields(path, o.operation) {
			if schema := path.Fields[name]; schema != nil {
				fields[name] = schema
			}
		}
		if declared := operation.Responses[200]; len(declared) > 0 {
			response = declared[0].Fields
		}
	}
	if len(fields) > 0 {
		b.WriteString("\n**Parameters**\n\n")
		writeFields(&b, fields, true)
	}
	computed := response
	if path.Operations[logical.UpdateOperation] != nil {
		computed = without(response, fields)
	}
	switch {
	case len(computed) == 0:
		return b.String()
	case shownPath(path) != "keys/:name" && maps.EqualFunc(response, key, sameField):
		b.WriteString("\n**Response**: the same as a read of [the key](#keys).\n")
		return b.String()
	case len(computed) < len(response):
		b.WriteString("\n**Response**: the settings, and\n\n")
	default:
		b.WriteString("\n**Response**\n\n")
	}
	writeFields(&b, computed, false)
	return b.String()
}

func sameField(a, b *framework.FieldSchema) bool { return a.Description == b.Description }

func without(fields, others map[string]*framework.FieldSchema) map[string]*framework.FieldSchema {
	rest := maps.Clone(fields)
	for name := range others {
		delete(rest, name)
	}
	return rest
}

// writeFields writes a list in the form of HashiCorp's API documentation.
func writeFields(b *strings.Builder, fields map[string]*framework.FieldSchema, parameters bool) {
	for _, name := range slices.SortedFunc(maps.Keys(fields), inDeclaredOrder) {
		schema := fields[name]
		description, standard, hasDefault := strings.Cut(schema.Description, " Default: ")
		kind := typeName(schema.Type)
		switch {
		case parameters && schema.Required:
			kind += ": <required>"
		case parameters && hasDefault:
			kind += ": " + strings.TrimSuffix(standard, ".")
		case parameters:
			kind += ": " + zeroValue(schema.Type)
		}
		fmt.Fprintf(b, "- `%s` `(%s)` – %s\n", name, kind, quoteNames(description))
	}
}

// quoteNames puts names of fields and paths, and what is written to them, into backquotes.
func quoteNames(text string) string {
	name := regexp.MustCompile("`[^`]*`|[a-z]+(?:_[a-z0-9]+)+(?:=\\w+)?|[a-z]+=\\w+")
	return name.ReplaceAllStringFunc(text, func(match string) string {
		return "`" + strings.Trim(match, "`") + "`"
	})
}

// inDeclaredOrder orders fields as their entries declare them, which is by importance, and then
// others by name.
func inDeclaredOrder(a, b string) int {
	var names []string
	for _, f := range configFields() {
		names = append(names, f.name)
	}
	for _, f := range keyFields() {
		names = append(names, f.name)
	}
	for _, f := range roleFields() {
		names = append(names, f.name)
	}
	rank := func(name string) int {
		if at := slices.Index(names, name); at >= 0 {
			return at
		}
		return len(names)
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), strings.Compare(a, b))
}

func typeName(kind framework.FieldType) string {
	switch kind {
	case framework.TypeString:
		return "string"
	case framework.TypeBool:
		return "bool"
	case framework.TypeInt, framework.TypeInt64:
		return "int"
	case framework.TypeDurationSecond:
		return "duration"
	case framework.TypeCommaStringSlice, framework.TypeStringSlice:
		return "list"
	case framework.TypeMap:
		return "map"
	}
	return "unknown"
}

func zeroValue(kind framework.FieldType) string {
	switch typeName(kind) {
	case "string":
		return `""`
	case "bool":
		return "false"
	case "list":
		return "[]"
	default:
		return "0"
	}
}

// troubleshootingSections names the sections of docs/troubleshooting.md by their first reason.
var troubleshootingSections = []struct {
	name  string
	first tokenendpoint.Reason
}{
	{"the key is rejected", tokenendpoint.UnknownKey},
	{"the client is rejected", tokenendpoint.UnknownClient},
	{"the assertion is rejected", tokenendpoint.WrongAudience},
	{"the request is rejected", tokenendpoint.InvalidScope},
	{"before anything is sent", tokenendpoint.HostNotListed},
	{"no connection", tokenendpoint.NoSuchHost},
	{"the response cannot be used", tokenendpoint.OtherIssuer},
	{"", tokenendpoint.Unauthorized}, // an HTTP status needs no index
}

// shownWords is what an error shows of a reason.
var shownWords = map[tokenendpoint.Reason]string{
	tokenendpoint.UnknownKey:             "Unable to load public key",
	tokenendpoint.UnusableKeys:           "Error when loading public keys",
	tokenendpoint.InvalidSignature:       "Signature on JWT token failed validation",
	tokenendpoint.WrongAlgorithm:         "Invalid signature algorithm",
	tokenendpoint.UnknownClient:          "Invalid client or Invalid client credentials",
	tokenendpoint.SecretClient:           "unauthorized_client",
	tokenendpoint.InvalidClient:          "invalid_client",
	tokenendpoint.MethodNotOffered:       "invalid_client",
	tokenendpoint.AlgorithmNotOffered:    "invalid_client",
	tokenendpoint.ClientIDMismatch:       "client_id parameter does not match",
	tokenendpoint.NoServiceAccount:       "Client not enabled to retrieve service account",
	tokenendpoint.PublicClient:           "Public client",
	tokenendpoint.BearerOnlyClient:       "Bearer-only",
	tokenendpoint.ServiceAccountMissing:  "associated service account for the client does not exist",
	tokenendpoint.ServiceAccountDisabled: "' disabled",
	tokenendpoint.UnauthorizedClient:     "unauthorized_client",
	tokenendpoint.UnsupportedGrantType:   "unsupported_grant_type",
	tokenendpoint.ClientSetupIncomplete:  "Client credentials setup required",
	tokenendpoint.ClientCheckFailed:      "Unexpected error",
	tokenendpoint.DPoPRequired:           "invalid_dpop_proof",
	tokenendpoint.WrongAudience:          "Invalid token audience",
	tokenendpoint.MultipleAudiences:      "Multiple audiences not allowed",
	tokenendpoint.IssuedInFuture:         "Token was issued in the future",
	tokenendpoint.IssuedTooLongAgo:       "Token was issued too far in the past",
	tokenendpoint.NotActive:              "Token is not active",
	tokenendpoint.Replayed:               "Token reuse detected",
	tokenendpoint.IssuedAtMissing:        "Token expiration is too far in the future",
	tokenendpoint.ClaimMissing:           "claim is required",
	tokenendpoint.AssertionMissing:       "client_assertion",
	tokenendpoint.InvalidScope:           "invalid_scope",
	tokenendpoint.InvalidTarget:          "invalid_target",
	tokenendpoint.InvalidRequest:         "invalid_request",
	tokenendpoint.DuplicateParameter:     "duplicated parameter",
	tokenendpoint.ForeignToken:           "Unmatching clients",
	tokenendpoint.HostNotListed:          "listed in allowed_hosts",
	tokenendpoint.URLNotAllowed:          "which is never allowed",
	tokenendpoint.NoSuchHost:             "the host name does not exist",
	tokenendpoint.ResolutionFailed:       "the host name could not be resolved",
	tokenendpoint.ConnectionRefused:      "connection refused",
	tokenendpoint.Unreachable:            "no route to the host",
	tokenendpoint.ConnectionClosed:       "the connection was closed before a response",
	tokenendpoint.ResponseTruncated:      "the response was cut off",
	tokenendpoint.Timeout:                "no complete response",
	tokenendpoint.NoConnection:           "no connection was made",
	tokenendpoint.UnknownAuthority:       "the certificate is signed by an unknown authority",
	tokenendpoint.WrongHostName:          "the certificate is for a different host name",
	tokenendpoint.CertificateExpired:     "the certificate has expired or is not valid yet",
	tokenendpoint.InvalidCertificate:     "the certificate is not valid",
	tokenendpoint.PlainHTTP:              "the server speaks plain HTTP on this port, not TLS",
	tokenendpoint.HandshakeFailed:        "the TLS handshake failed",
	tokenendpoint.NetworkFailure:         "the connection failed, or the server does not speak HTTP",
	tokenendpoint.ProxyAuthentication:    "the proxy requires authentication (HTTP 407)",
	tokenendpoint.ProxyRejected:          "the proxy rejected the connection",
	tokenendpoint.OtherIssuer:            "the discovery document is for a different issuer",
	tokenendpoint.Redirected:             "redirects are not followed",
	tokenendpoint.NotJSON:                "the response is not JSON",
	tokenendpoint.ResponseTooLarge:       "the response is larger than",
	tokenendpoint.TokenExpired:           "the token has already expired",
	tokenendpoint.InvalidResponse:        "is missing",
	tokenendpoint.Unauthorized:           "401", tokenendpoint.Forbidden: "403", tokenendpoint.NoSuchIssuer: "404",
	tokenendpoint.NoSuchEndpoint: "404", tokenendpoint.MethodNotAllowed: "405", tokenendpoint.ProxyUnauthorized: "407",
	tokenendpoint.RequestTimeout: "408", tokenendpoint.RequestTooLarge: "413", tokenendpoint.RateLimited: "429",
	tokenendpoint.InternalServerError: "500", tokenendpoint.UnrecognizableError: "The error is unrecognizable", tokenendpoint.BadGateway: "502", tokenendpoint.ServiceUnavailable: "503",
	tokenendpoint.GatewayTimeout: "504",
}

func reasonOf(row diagnosis) tokenendpoint.Reason {
	return tokenendpoint.Reason(strings.TrimPrefix(row.name, "portal:"))
}

// diagnosisBlocks returns the tables of docs/troubleshooting.md by section; what to do is in the
// errors themselves. Rows that follow each other with one meaning are one.
func diagnosisBlocks() map[string]string {
	names := strings.NewReplacer(" ({clock})", "", "{owner}", "the provider's operators", "|", `\|`)
	blocks := map[string]string{}
	section, meaning := "", ""
	var seen []string
	flush := func() {
		if len(seen) > 0 {
			blocks[section] += fmt.Sprintf("| %s | %s |\n", strings.Join(slices.Compact(seen), ", "), names.Replace(meaning))
		}
		seen = nil
	}
	for _, row := range diagnoses() {
		if row.meaning != meaning {
			flush()
		}
		for _, s := range troubleshootingSections {
			if s.first == reasonOf(row) && s.name != section {
				flush()
				section = s.name
				blocks[section] = "| The error contains | Meaning |\n|---|---|\n"
			}
		}
		shown := "`" + shownWords[reasonOf(row)] + "`"
		if strings.HasPrefix(row.name, "portal:") {
			shown += " (issuers of the portal)"
		}
		seen, meaning = append(seen, shown), row.meaning
	}
	flush()
	delete(blocks, "")
	return blocks
}

// A message in the docs that the code does not have would never be found by who searches for it.
func TestDocs_ShowWordsThatTheCodeHas(t *testing.T) {
	t.Parallel()
	source := literals(t, "internal/tokenendpoint") + literals(t, "internal/netguard")
	for _, row := range diagnoses() {
		words := shownWords[reasonOf(row)]
		require.NotEmpty(t, words, row.name)
		if _, err := strconv.Atoi(words); err != nil {
			require.NotEmpty(t, strings.Count(source, words), "no message contains %q", words)
		}
	}
}

// literals returns the string literals and tables of a package's production code, joined.
func literals(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	eachFile(t, dir, func(file *ast.File) {
		ast.Inspect(file, func(node ast.Node) bool {
			if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				require.NoError(t, err)
				b.WriteString(text + "\n")
			}
			return true
		})
	})
	tables, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	require.NoError(t, err)
	for _, table := range tables {
		text, err := os.ReadFile(table)
		require.NoError(t, err)
		b.Write(text)
	}
	return b.String()
}

// eachFile parses the production code of a package.
func eachFile(t *testing.T, dir string, visit func(*ast.File)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		visit(file)
	}
}

// Operators alert on these lines.
func TestDocs_ListEveryLogMessage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "operating.md"))
	require.NoError(t, err)
	var listed []string
	for _, row := range regexp.MustCompile("(?m)^- (?:INFO|WARN|ERROR) `([^`]+)`").FindAllSubmatch(page, -1) {
		listed = append(listed, string(row[1]))
	}
	var logged []string
	for _, dir := range []string{".", "internal/exchange", "internal/tokencache"} {
		eachFile(t, dir, func(file *ast.File) {
			ast.Inspect(file, func(node ast.Node) bool {
				if message, ok := logMessage(node); ok {
					logged = append(logged, message)
				}
				return true
			})
		})
	}
	require.ElementsMatch(t, logged, listed)
}

// logMessage returns the message of a call such as logger.Warn("message", …).
func logMessage(node ast.Node) (string, bool) {
	call, isCall := node.(*ast.CallExpr)
	if !isCall || len(call.Args) == 0 {
		return "", false
	}
	method, isMethod := call.Fun.(*ast.SelectorExpr)
	literal, isLiteral := call.Args[0].(*ast.BasicLit)
	if !isMethod || !isLiteral || !slices.Contains([]string{"Debug", "Info", "Warn", "Error"}, method.Sel.Name) {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}

// TestDocs_ThreatModelNamesTestsThatExist holds each item of the threat model to at least one test.
func TestDocs_ThreatModelNamesTestsThatExist(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "security.md"))
	require.NoError(t, err)
	_, threats, found := strings.Cut(string(page), "\n## Threats\n")
	require.True(t, found, "the section Threats")
	threats, _, _ = strings.Cut(threats, "\n## ")
	items := strings.Split(threats, "\n- ")[1:]
	require.NotEmpty(t, items)
	existing, named := testFunctions(t), regexp.MustCompile("`(Test\\w+)(?:/\\w+)?`")
	for _, item := range items {
		tests := named.FindAllStringSubmatch(item, -1)
		require.NotEmpty(t, tests, "this item names no test: %s", item)
		for _, name := range tests {
			require.True(t, existing[name[1]], "there is no test %q, which this item names: %s", name[1], item)
		}
	}
}

// testFunctions returns the names of the module's tests.
func testFunctions(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	eachRepositoryFile(t, "_test.go", func(path string) {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		for _, declared := range file.Decls {
			if function, ok := declared.(*ast.FuncDecl); ok && function.Recv == nil &&
				strings.HasPrefix(function.Name.Name, "Test") {
				names[function.Name.Name] = true
			}
		}
	})
	return names
}

// eachRepositoryFile visits the files whose names end so, hidden folders excepted.
func eachRepositoryFile(t *testing.T, suffix string, visit func(path string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && path != ".." && strings.HasPrefix(entry.Name(), "."):
			return fs.SkipDir
		case !entry.IsDir() && strings.HasSuffix(path, suffix):
			visit(path)
		}
		return nil
	}))
}

func TestDocs_LinksLeadToPagesAndHeadings(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#\s]*)(?:#([^)\s]*))?\)`)
	eachRepositoryFile(t, ".md", func(path string) {
		page, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, match := range link.FindAllStringSubmatch(string(page), -1) {
			target := filepath.Join(filepath.Dir(path), match[1])
			switch {
			case strings.Contains(match[1], "://"):
				continue
			case match[1] == "":
				target = path
			}
			_, err := os.Stat(target)
			require.NoError(t, err, "%s links to %s", path, match[1])
			if match[2] != "" {
				require.Contains(t, anchors(t, target), match[2], "%s links to %s", path, match[0])
			}
		}
	})
}

// anchors returns the fragments that GitHub gives to a page's headings.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	page, err := os.ReadFile(path)
	require.NoError(t, err)
	dropped := regexp.MustCompile(`[^\w\s-]`)
	var found []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(string(page), -1) {
		text := dropped.ReplaceAllString(strings.ToLower(heading[1]), "")
		found = append(found, strings.ReplaceAll(text, " ", "-"))
	}
	return found
}

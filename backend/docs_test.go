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

	"github.com/bcgov/vault-plugin-bcgov-jwt/backend/internal/tokenendpoint"
	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/stretchr/testify/require"
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
	key, certificate := readFields(m, "keys/x"), readFields(m, "keys/x/certificate")
	for _, served := range m.paths() {
		shown := shownPath(served)
		if list, ok := served.Operations[logical.ListOperation].(*framework.PathOperation); ok {
			lists[shown] = operationRow("LIST", shown, list)
			continue
		}
		blocks[shown] = lists[path.Dir(shown)] + describePath(served, key, certificate)
	}
	return blocks
}

func readFields(m *mount, path string) map[string]*framework.FieldSchema {
	read := m.Route(path).Operations[logical.ReadOperation].(*framework.PathOperation)
	return read.Responses[200][0].Fields
}

func operationRow(method, path string, operation *framework.PathOperation) string {
	return fmt.Sprintf("- `%s %s`: %s\n", method, path, operation.Summary)
}

// shownPath returns a path as the docs write it: keys/:name for keys/(?P<name>[^/]+).
func shownPath(path *framework.Path) string {
	shown := regexp.MustCompile(`\(\?P<(\w+)>[^)]*\)`).ReplaceAllString(path.Pattern, ":$1")
	return strings.TrimSuffix(shown, "/?$")
}

// describePath lists a path's parameters and response; instead of the fields of key or certificate,
// other paths have a link.
func describePath(path *framework.Path, key, certificate map[string]*framework.FieldSchema) string {
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
	computed, more := response, without(response, certificate)
	if path.Operations[logical.UpdateOperation] != nil {
		computed = without(response, fields)
	}
	switch {
	case len(computed) == 0:
		return b.String()
	case shownPath(path) != "keys/:name" && maps.EqualFunc(response, key, sameField):
		b.WriteString("\n**Response**: the same as a read of [the key](#keys).\n")
		return b.String()
	case len(more) > 0 && len(more) == len(response)-len(certificate):
		computed = more
		b.WriteString("\n**Response**: what [certificate](#keysnamecertificate) returns, and\n\n")
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
		fmt.Fprintf(b, "- `%s` `(%s)`: %s\n", name, kind, quoteNames(description))
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

// troubleshootingSections names the sections of docs/troubleshooting.md by their first reason. What
// follows them in diagnosis.txt is in the plugin's own words, which need no index.
var troubleshootingSections = map[tokenendpoint.Reason]string{
	tokenendpoint.UnknownKey:               "the key is rejected",
	tokenendpoint.UnknownClient:            "the client is rejected",
	tokenendpoint.Reason("wrong_audience"): "the assertion is rejected",
	tokenendpoint.Reason("invalid_scope"):  "the request is rejected",
	tokenendpoint.HostNotListed:            "",
}

// shownWords is what an error of these sections quotes of the provider.
var shownWords = map[tokenendpoint.Reason]string{
	tokenendpoint.UnknownKey:                         "Unable to load public key",
	tokenendpoint.UnusableKeys:                       "Error when loading public keys",
	tokenendpoint.InvalidSignature:                   "Signature on JWT token failed validation",
	tokenendpoint.WrongAlgorithm:                     "Invalid signature algorithm",
	tokenendpoint.UnknownClient:                      "Invalid client or Invalid client credentials",
	tokenendpoint.SecretClient:                       "unauthorized_client",
	tokenendpoint.InvalidClient:                      "invalid_client",
	tokenendpoint.Reason("client_id_mismatch"):       "client_id parameter does not match",
	tokenendpoint.Reason("no_service_account"):       "Client not enabled to retrieve service account",
	tokenendpoint.Reason("public_client"):            "Public client",
	tokenendpoint.Reason("bearer_only_client"):       "Bearer-only",
	tokenendpoint.Reason("service_account_missing"):  "associated service account for the client does not exist",
	tokenendpoint.Reason("service_account_disabled"): "' disabled",
	tokenendpoint.Reason("unauthorized_client"):      "unauthorized_client",
	tokenendpoint.Reason("unsupported_grant_type"):   "unsupported_grant_type",
	tokenendpoint.Reason("client_setup_incomplete"):  "Client credentials setup required",
	tokenendpoint.Reason("client_check_failed"):      "Unexpected error",
	tokenendpoint.DPoPRequired:                       "invalid_dpop_proof",
	tokenendpoint.Reason("wrong_audience"):           "Invalid token audience",
	tokenendpoint.Reason("multiple_audiences"):       "Multiple audiences not allowed",
	tokenendpoint.Reason("issued_in_future"):         "Token was issued in the future",
	tokenendpoint.Reason("issued_too_long_ago"):      "Token was issued too far in the past",
	tokenendpoint.Reason("not_active"):               "Token is not active",
	tokenendpoint.Reason("replayed"):                 "Token reuse detected",
	tokenendpoint.Reason("issued_at_missing"):        "Token expiration is too far in the future",
	tokenendpoint.Reason("claim_missing"):            "claim is required",
	tokenendpoint.Reason("assertion_missing"):        "client_assertion",
	tokenendpoint.Reason("invalid_scope"):            "invalid_scope",
	tokenendpoint.Reason("invalid_target"):           "invalid_target",
	tokenendpoint.Reason("invalid_request"):          "invalid_request",
	tokenendpoint.Reason("duplicate_parameter"):      "duplicated parameter",
	tokenendpoint.Reason("foreign_token"):            "Unmatching clients",
}

func reasonOf(row diagnosis) tokenendpoint.Reason {
	return tokenendpoint.Reason(strings.TrimPrefix(row.name, "portal:"))
}

// indexed is a row of diagnosis.txt that docs/troubleshooting.md lists in a section.
type indexed struct {
	diagnosis
	section string
}

func indexedDiagnoses() (rows []indexed) {
	// In an error, they are told from InvalidClient by the discovery document only.
	refined := []tokenendpoint.Reason{
		tokenendpoint.MethodNotOffered, tokenendpoint.AlgorithmNotOffered,
	}
	section := ""
	for _, row := range diagnoses() {
		if name, first := troubleshootingSections[reasonOf(row)]; first {
			section = name
		}
		if section != "" && !slices.Contains(refined, reasonOf(row)) {
			rows = append(rows, indexed{row, section})
		}
	}
	return rows
}

// diagnosisBlocks returns the lists of docs/troubleshooting.md by section. An item is a remedy, with
// the words of all errors that have it; what they mean is in the errors themselves.
func diagnosisBlocks() map[string]string {
	remedies, words, blocks := map[string][]string{}, map[string][]string{}, map[string]string{}
	for _, row := range indexedDiagnoses() {
		shown := "`" + shownWords[reasonOf(row.diagnosis)] + "`"
		if strings.HasPrefix(row.name, "portal:") {
			shown += " (API Services Portal)"
		}
		item := row.section + row.remedy
		if words[item] == nil {
			remedies[row.section] = append(remedies[row.section], row.remedy)
		}
		words[item] = append(words[item], shown)
	}
	for section := range remedies {
		for _, remedy := range remedies[section] {
			shown := strings.Join(words[section+remedy], ", ")
			blocks[section] += fmt.Sprintf("- %s: %s\n", shown, documentedRemedy(remedy))
		}
	}
	return blocks
}

// documentedRemedy fills in what depends on the situation in an error.
func documentedRemedy(remedy string) string {
	filled := strings.NewReplacer("{mount}", "bcgov-jwt/", "{key}", "x", "{role}", "x", "{check}", "",
		"{owner}", "the API's owner",
		"{register}", "Register the key's `public_key` or JWKS URL",
		"{algorithm}", "Set `algorithm` to the one that the client is registered for",
		"{audience}", "Copy the issuer exactly; or set `audience` to the token endpoint, if the "+
			"provider expects that",
		"{candidates}", "clocks, public key, client_id, audience, algorithm",
	).Replace(remedy)
	filled = quoteNames(filled)
	return strings.ToLower(filled[:1]) + filled[1:]
}

// A message in the docs that the code does not have would never be found by who searches for it.
func TestDocs_ShowWordsThatTheCodeHas(t *testing.T) {
	t.Parallel()
	source := literals(t, "internal/tokenendpoint")
	for _, row := range indexedDiagnoses() {
		words := shownWords[reasonOf(row.diagnosis)]
		require.NotEmpty(t, words, row.name)
		require.Contains(t, source, words)
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

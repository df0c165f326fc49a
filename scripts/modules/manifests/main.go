// Command manifests validates Kubernetes manifests with kubeconform: it returns an error for what a
// cluster would reject or silently drop by the schema of a resource. On success it prints each
// document as JSON, one per line.
//
// An OpenShift Template is replaced by its objects, with the values of its parameters, as
// `oc process` does.
//
// Usage: manifests [-p NAME=VALUE]... FILE ...
//
// It is a separate module, so that its dependencies stay out of the plugin's. The schemas come from
// the Go modules of Kubernetes and of the operators.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/yannh/kubeconform/pkg/resource"
	"github.com/yannh/kubeconform/pkg/validator"
	"sigs.k8s.io/yaml"
)

// module is a Go module that ships definitions of resources.
type module struct {
	path, version string
	sum           string // as in go.sum: go.mod cannot require a module that nothing imports
	definitions   string // matches their files
	add           func(schemas, []byte) error
}

// modules returns those of the resources that docs/examples has manifests for.
func modules() []module {
	return []module{
		{
			path: "k8s.io/kubernetes", version: "v1.37.2",
			sum:         "h1:A2VDEiObzkYqFTKhSsn0ZEb0RlLEXpHWj93gi2HqEwE=",
			definitions: "api/openapi-spec/swagger.json", add: schemas.addNative,
		},
		{
			path: "github.com/hashicorp/vault-secrets-operator", version: "v0.10.0",
			sum:         "h1:BjOTBJRqx1SLo7NeyqNJWRPDyfRscbqPtGU1U2LzArg=",
			definitions: "chart/crds/*_*.yaml", add: schemas.addCustom,
		},
		{
			path: "github.com/external-secrets/external-secrets", version: "v1.3.2",
			sum:         "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
			definitions: "config/crds/bases/*_*.yaml", add: schemas.addCustom,
		},
		{
			path: "github.com/openshift/api", version: "v0.0.0-20251015095338-264e80a2b6e7",
			sum:         "h1:Ot2fbEEPmF3WlPQkyEW/bUCV38GMugH/UmZvxpWceNc=",
			definitions: "route/v1/zz_generated.crd-manifests/*.crd.yaml", add: schemas.addCustom,
		},
	}
}

func main() {
	values := parameters{}
	flag.Var(values, "p", "`NAME=VALUE` of a Template's parameter")
	flag.Parse()
	if err := run(flag.Args(), values); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var separator = regexp.MustCompile(`(?m)^---.*$`) // of YAML documents

func run(files []string, values parameters) error {
	if len(files) == 0 {
		return errors.New("no files; usage: manifests [-p NAME=VALUE]... FILE ...")
	}
	folder, err := os.MkdirTemp("", "schemas")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	known := schemas(folder)
	for _, m := range modules() {
		if err := m.addTo(known); err != nil {
			return fmt.Errorf("%s: %w", m.path, err)
		}
	}
	location := known.file("{{.Group}}", "{{.ResourceAPIVersion}}", "{{.ResourceKind}}")
	check, err := validator.New([]string{location}, validator.Opts{Strict: true})
	if err != nil {
		return err
	}
	var problems []error
	var lines bytes.Buffer
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		documents, err := process(separator.Split(string(content), -1), values)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for i, document := range documents {
			result := check.ValidateResource(resource.Resource{Bytes: document})
			if result.Status != validator.Valid {
				err := cmp.Or(result.Err, errors.New("empty"))
				problems = append(problems, fmt.Errorf("%s, document %d: %w", file, i+1, err))
			}
			lines.Write(append(document, '\n'))
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	_, err = lines.WriteTo(os.Stdout)
	return err
}

// download returns the module's folder in Go's module cache.
func (m module) download() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", m.path+"@"+m.version)
	cmd.Dir = os.TempDir() // outside any module, so that it becomes no dependency
	output, err := cmd.Output()
	var downloaded struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(output, &downloaded); jsonErr != nil {
		return "", errors.Join(err, jsonErr)
	}
	if downloaded.Error != "" {
		return "", errors.New(downloaded.Error)
	}
	if downloaded.Sum != m.sum {
		return "", fmt.Errorf("%s: checksum is %s, want %s", m.version, downloaded.Sum, m.sum)
	}
	return downloaded.Dir, err
}

func (m module) addTo(known schemas) error {
	dir, err := m.download()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(m.definitions)))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no definitions at " + m.definitions)
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err == nil {
			err = m.add(known, content)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// schemas is a folder of JSON schemas, which refer to each other by file name.
type schemas string

func (s schemas) file(group, version, kind string) string {
	return filepath.Join(string(s), kind+"_"+group+"_"+version+".json")
}

const machinery = "io.k8s.apimachinery.pkg." // begins the names of what all resources share

// addNative adds Kubernetes' own resources, and their parts.
func (s schemas) addNative(swagger []byte) error {
	var content struct{ Definitions map[string]schema }
	relative := bytes.ReplaceAll(swagger, []byte("#/definitions/"), nil)
	if err := json.Unmarshal(relative, &content); err != nil {
		return err
	}
	// Declared as any string: OpenAPI 2.0 cannot express a string or number.
	content.Definitions[machinery+"api.resource.Quantity"] = schema{
		"type":    []string{"string", "number"},
		"pattern": `^[+-]?[0-9.]+([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$`,
	}
	for name, definition := range content.Definitions {
		definition.restrict()
		resources, _ := definition["x-kubernetes-group-version-kind"].([]any)
		for _, resource := range resources {
			id := resource.(map[string]any)
			group, version := id["group"].(string), id["version"].(string)
			// For the core group, kubeconform has the version as the group.
			err := s.addResource(cmp.Or(group, version), version, id["kind"].(string), definition)
			if err != nil {
				return err
			}
		}
		if err := definition.write(filepath.Join(string(s), name)); err != nil {
			return err
		}
	}
	return nil
}

// addCustom adds the served versions of a custom resource.
func (s schemas) addCustom(content []byte) error {
	var definition struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Served bool
				Schema struct{ OpenAPIV3Schema schema }
			}
		}
	}
	if err := yaml.Unmarshal(content, &definition); err != nil {
		return err
	}
	for _, version := range definition.Spec.Versions {
		if !version.Served {
			continue
		}
		resource := version.Schema.OpenAPIV3Schema
		resource.restrict()
		resource.properties()["metadata"] = schema{"$ref": machinery + "apis.meta.v1.ObjectMeta"}
		kind := definition.Spec.Names.Kind
		if err := s.addResource(definition.Spec.Group, version.Name, kind, resource); err != nil {
			return err
		}
	}
	return nil
}

func (s schemas) addResource(group, version, kind string, resource schema) error {
	resource.properties()["kind"] = schema{"enum": []string{kind}} // file names ignore capitals
	return resource.write(s.file(group, version, strings.ToLower(kind)))
}

// schema is a JSON schema of draft 4.
type schema map[string]any

func (s schema) properties() map[string]any {
	properties, _ := s["properties"].(map[string]any)
	return properties
}

// restrict forbids the fields that a cluster would drop, and expresses "integer or string" in JSON
// schema.
func (s schema) restrict() {
	for _, property := range s.properties() {
		schema(property.(map[string]any)).restrict()
	}
	for _, keyword := range []string{"items", "additionalProperties"} {
		if below, isSchema := s[keyword].(map[string]any); isSchema {
			schema(below).restrict()
		}
	}
	if s["x-kubernetes-int-or-string"] == true || s["format"] == "int-or-string" {
		s["type"] = []string{"integer", "string"}
		delete(s, "anyOf") // says the same, or null in OpenShift's
	}
	_, isMap := s["additionalProperties"]
	if s["type"] == "object" && !isMap && s["x-kubernetes-preserve-unknown-fields"] != true {
		s["additionalProperties"] = false
	}
}

func (s schema) write(file string) error {
	encoded, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return os.WriteFile(file, encoded, 0o600)
}

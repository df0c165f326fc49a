// Command crds validates Kubernetes manifests against the custom resource definitions of their
// operators, using the API server's own libraries: anything a cluster would reject or silently
// drop is an error. Of Kubernetes' own resources it verifies that each field exists and has its
// type, not the values. On success it prints each document as JSON, one per line.
//
// An OpenShift Template is replaced by its objects, with the values of its parameters, as
// `oc process` does.
//
// Usage: crds [-p NAME=VALUE]... FILE ...
//
// It is a separate module, so that its dependencies stay out of the plugin's. The definitions
// come from the operators' Go modules.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	templatev1 "github.com/openshift/api/template/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	jsonserializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"
)

// operator is a Go module that ships custom resource definitions.
type operator struct {
	module, version string
	sum             string // as in go.sum: go.mod cannot require a module that nothing imports
	definitions     string // matches their files
}

// operators returns those that docs/examples has manifests for.
func operators() []operator {
	return []operator{
		{
			module: "github.com/hashicorp/vault-secrets-operator", version: "v0.10.0",
			sum:         "h1:BjOTBJRqx1SLo7NeyqNJWRPDyfRscbqPtGU1U2LzArg=",
			definitions: "chart/crds/*_*.yaml",
		},
		{
			module: "github.com/external-secrets/external-secrets", version: "v1.3.2",
			sum:         "h1:u2J8RjlHIeF0oZCqtl92adI/uZWUwOesJIDkfql6LqQ=",
			definitions: "config/crds/bases/*_*.yaml",
		},
		{
			module: "github.com/openshift/api", version: "v0.0.0-20251015095338-264e80a2b6e7",
			sum:         "h1:Ot2fbEEPmF3WlPQkyEW/bUCV38GMugH/UmZvxpWceNc=",
			definitions: "route/v1/zz_generated.crd-manifests/*.crd.yaml",
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

func run(files []string, values parameters) error {
	if len(files) == 0 {
		return errors.New("no files; usage: crds [-p NAME=VALUE]... FILE ...")
	}
	native, err := newNativeTypes()
	if err != nil {
		return err
	}
	known := schemas{}
	for _, o := range operators() {
		if err := known.addOperator(o); err != nil {
			return fmt.Errorf("%s: %w", o.module, err)
		}
	}
	var problems []error
	var contents []any
	for _, file := range files {
		documents, err := readDocuments(file)
		if err == nil {
			documents, err = native.process(documents, values)
		}
		if err != nil {
			return err
		}
		for i, document := range documents {
			content, isNative, err := native.check(document)
			if !isNative {
				content, err = known.check(document)
			}
			if err != nil {
				problems = append(problems, fmt.Errorf("%s, document %d: %w", file, i+1, err))
			}
			contents = append(contents, content)
		}
	}
	if len(problems) > 0 {
		return errors.Join(problems...)
	}
	lines := json.NewEncoder(os.Stdout)
	for _, content := range contents {
		if err := lines.Encode(content); err != nil {
			return err
		}
	}
	return nil
}

func readDocuments(file string) (documents [][]byte, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(content))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return documents, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		documents = append(documents, document)
	}
}

// nativeTypes decodes those of Kubernetes' own resources that docs/examples has manifests for.
type nativeTypes struct {
	scheme *runtime.Scheme
	strict runtime.Decoder
}

func newNativeTypes() (*nativeTypes, error) {
	types := runtime.NewScheme()
	groups := runtime.NewSchemeBuilder(corev1.AddToScheme, appsv1.AddToScheme, batchv1.AddToScheme,
		networkingv1.AddToScheme, policyv1.AddToScheme, rbacv1.AddToScheme, templatev1.Install)
	if err := groups.AddToScheme(types); err != nil {
		return nil, err
	}
	options := jsonserializer.SerializerOptions{Yaml: true, Strict: true}
	strict := jsonserializer.NewSerializerWithOptions(jsonserializer.DefaultMetaFactory, types,
		types, options)
	return &nativeTypes{types, strict}, nil
}

// check returns isNative=false for a resource that is not Kubernetes' own.
func (n *nativeTypes) check(document []byte) (content map[string]any, isNative bool, err error) {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(document, &meta); err != nil {
		return nil, false, err
	}
	if !n.scheme.Recognizes(meta.GroupVersionKind()) {
		return nil, false, nil
	}
	if _, _, err := n.strict.Decode(document, nil, nil); err != nil {
		return nil, true, err
	}
	return content, true, yaml.Unmarshal(document, &content)
}

// schemas holds the served versions of custom resources.
type schemas map[metav1.TypeMeta]*schema.Structural

func (s schemas) addOperator(o operator) error {
	dir, err := o.download()
	if err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(o.definitions)))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return errors.New("no definitions at " + o.definitions)
	}
	for _, file := range files {
		if err := s.addDefinition(file); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// download returns the module's folder in Go's module cache.
func (o operator) download() (string, error) {
	cmd := exec.Command("go", "mod", "download", "-json", o.module+"@"+o.version)
	cmd.Dir = os.TempDir() // outside any module, so that it becomes no dependency
	output, err := cmd.Output()
	var module struct{ Dir, Sum, Error string }
	if jsonErr := json.Unmarshal(output, &module); jsonErr != nil {
		return "", errors.Join(err, jsonErr)
	}
	if module.Error != "" {
		return "", errors.New(module.Error)
	}
	if module.Sum != o.sum {
		return "", fmt.Errorf("%s: checksum is %s, want %s", o.version, module.Sum, o.sum)
	}
	return module.Dir, err
}

func (s schemas) addDefinition(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var definition apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(content, &definition); err != nil {
		return err
	}
	for _, version := range definition.Spec.Versions {
		if !version.Served {
			continue
		}
		var props apiextensions.JSONSchemaProps
		err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(
			version.Schema.OpenAPIV3Schema, &props, nil)
		if err != nil {
			return err
		}
		structural, err := schema.NewStructural(&props)
		if err != nil {
			return err
		}
		s[metav1.TypeMeta{
			APIVersion: definition.Spec.Group + "/" + version.Name,
			Kind:       definition.Spec.Names.Kind,
		}] = structural
	}
	return nil
}

// check returns an error for values that violate the schema and for unknown fields, which a
// cluster would drop.
func (s schemas) check(document []byte) (content map[string]any, err error) {
	var resource struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta `json:"metadata"`
		Spec     map[string]any    `json:"spec"`
	}
	if err := yaml.UnmarshalStrict(document, &resource); err != nil {
		return nil, err
	}
	structural := s[resource.TypeMeta]
	if structural == nil {
		return nil, fmt.Errorf("no definition of %s %s", resource.APIVersion, resource.Kind)
	}
	if err := yaml.Unmarshal(document, &content); err != nil {
		return nil, err
	}
	validator := validate.NewSchemaValidator(structural.ToKubeOpenAPI(), nil, "", strfmt.Default)
	problems := validator.Validate(content).Errors
	dropped := pruning.PruneWithOptions(content, structural, true,
		schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range dropped {
		problems = append(problems, fmt.Errorf("unknown field %s", path))
	}
	return content, errors.Join(problems...)
}

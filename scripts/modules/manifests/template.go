package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	templatev1 "github.com/openshift/api/template/v1"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// parameters holds the values of a Template's parameters by name.
type parameters map[string]string

func (p parameters) String() string { return "" } // no default

// Set adds NAME=VALUE.
func (p parameters) Set(text string) error {
	name, value, found := strings.Cut(text, "=")
	if !found {
		return fmt.Errorf("%q: want NAME=VALUE", text)
	}
	p[name] = value
	return nil
}

// process returns YAML documents as JSON, with the objects of each Template in its place.
func process(documents []string, values parameters) (all [][]byte, err error) {
	for _, document := range documents {
		encoded, err := yaml.YAMLToJSONStrict([]byte(document))
		if err != nil {
			return nil, err
		}
		var template templatev1.Template
		mistakes, err := kjson.UnmarshalStrict(encoded, &template)
		if template.GroupVersionKind() != templatev1.GroupVersion.WithKind("Template") {
			all = append(all, encoded)
			continue
		}
		if err := errors.Join(append(mistakes, err)...); err != nil {
			return nil, err
		}
		objects, err := objectsOf(&template, values)
		if err != nil {
			return nil, fmt.Errorf("template %s: %w", template.Name, err)
		}
		all = append(all, objects...)
	}
	return all, nil
}

// objectsOf returns a Template's objects. Like OpenShift, it refuses unknown parameters and
// required ones without a value.
func objectsOf(template *templatev1.Template, given parameters) (objects [][]byte, err error) {
	values := parameters{}
	for _, p := range template.Parameters {
		values[p.Name] = p.Value
		if value, isGiven := given[p.Name]; isGiven {
			values[p.Name] = value
		}
		if p.Required && values[p.Name] == "" {
			return nil, fmt.Errorf("parameter %s is required", p.Name)
		}
	}
	for name := range given {
		if _, known := values[name]; !known {
			return nil, fmt.Errorf("unknown parameter %s", name)
		}
	}
	for _, raw := range template.Objects {
		var object any
		if err := json.Unmarshal(raw.Raw, &object); err != nil {
			return nil, err
		}
		object, err := values.substitute(object)
		if err != nil {
			return nil, err
		}
		encoded, err := json.Marshal(object)
		if err != nil {
			return nil, err
		}
		objects = append(objects, encoded)
	}
	return objects, nil
}

// reference matches ${NAME}. OpenShift's ${{NAME}}, for values that are no strings, no example
// needs.
var reference = regexp.MustCompile(`\$\{([a-zA-Z0-9_]+)\}`)

// substitute replaces the references in all strings of a JSON value. OpenShift leaves unknown
// ones, which would be mistakes here.
func (p parameters) substitute(value any) (_ any, err error) {
	switch value := value.(type) {
	case map[string]any:
		for name := range value {
			if value[name], err = p.substitute(value[name]); err != nil {
				return nil, err
			}
		}
	case []any:
		for i := range value {
			if value[i], err = p.substitute(value[i]); err != nil {
				return nil, err
			}
		}
	case string:
		return p.expand(value)
	}
	return value, nil
}

func (p parameters) expand(text string) (_ string, err error) {
	expanded := reference.ReplaceAllStringFunc(text, func(match string) string {
		name := reference.FindStringSubmatch(match)[1]
		value, known := p[name]
		if !known {
			err = fmt.Errorf("no parameter %s", name)
		}
		return value
	})
	return expanded, err
}

package main

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// wrongValues names each setting whose text is none of its kind, which the readers of
// YAML and of the environment do not. text gives what was written for a setting, and
// name how it was called there.
func wrongValues(text func(path string) (string, bool), name func(path string) string) error {
	var errs []error
	walkSettings(reflect.ValueOf(settings{}), "", func(path string, _ reflect.StructField, v reflect.Value) {
		s, there := text(path)
		if !there {
			return
		}
		want := ""
		var err error
		switch kind := v.Kind(); {
		case v.Type() == reflect.TypeFor[time.Duration]():
			_, err = time.ParseDuration(s)
			want = "a time such as 90s or 720h"
		case kind == reflect.Bool:
			_, err = strconv.ParseBool(s)
			want = "true or false"
		case v.CanInt():
			_, err = strconv.ParseInt(s, 10, 64)
			want = "a whole number"
		case v.CanFloat():
			_, err = strconv.ParseFloat(s, 64)
			want = "a number"
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s is %q, it must be %s", name(path), s, want))
		}
	})
	return errors.Join(errs...)
}

// inTree finds a setting in a parsed file.
func inTree(tree map[string]any, path string) (any, bool) {
	room, name, deep := strings.Cut(path, ".")
	value, there := tree[room]
	if inner, ok := value.(map[string]any); ok && deep {
		value, there = inner[name]
	}
	return value, there && value != nil
}

// unknownVariables tells of variables that look like settings and are none: a slip in a
// name would otherwise leave the default in force without a word.
func unknownVariables(environ []string) error {
	known := []string{"DREAM_CONFIG"}
	walkSettings(reflect.ValueOf(settings{}), "", func(path string, _ reflect.StructField, _ reflect.Value) {
		known = append(known, variable(path))
	})
	var errs []error
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, "DREAM_") || slices.Contains(known, name) {
			continue
		}
		near, most := "", 0
		for _, k := range known {
			same := 0
			for same < min(len(k), len(name)) && k[same] == name[same] {
				same++
			}
			if same > most {
				near, most = k, same
			}
		}
		errs = append(errs, fmt.Errorf("the variable %s is no setting (%s is); dream config show lists them", name, near))
	}
	return errors.Join(errs...)
}

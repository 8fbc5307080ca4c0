// Package anchor names the module whose tests are run, so that go.mod and go.sum pin it and what its tests need.
package anchor

import _ "github.com/twmb/franz-go/pkg/kgo"

// Package anchor names the modules whose tests and program are run, so that go.mod and go.sum pin them and what they need.
package anchor

import (
	_ "github.com/IBM/sarama"
	_ "github.com/Shopify/toxiproxy/v2"
)

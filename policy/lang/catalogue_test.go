package lang

import (
	"slices"
	"testing"

	"github.com/sqlwatch/sqlwatch/policy/catalogue"
)

// The catalogue lists the functions that there are. Those that read the surroundings come
// with the configuration.
func TestCatalogueOfFunctions(t *testing.T) {
	t.Parallel()
	there := append(keys((&Scope{}).functions()), "env", "file", "secret")
	var listed []string
	for _, f := range catalogue.Functions {
		listed = append(listed, f.Name)
	}
	slices.Sort(there)
	slices.Sort(listed)
	if !slices.Equal(there, listed) {
		t.Errorf("there are %v\nlisted are %v", there, listed)
	}
}

// Package function greets whoever is named, or the world.
package function

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/GoogleCloudPlatform/functions-framework-go/functions"
)

func init() {
	functions.HTTP("HelloHTTP", HelloHTTP)
}

// HelloHTTP answers "Hello NAME!" with the name from the JSON body, else from the query, else "World".
func HelloHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Name string `json:"name"`
	}
	name := "World"
	if err := json.NewDecoder(r.Body).Decode(&body); err == nil && body.Name != "" {
		name = body.Name
	} else if query := r.URL.Query(); query.Has("name") {
		name = query.Get("name")
	}
	fmt.Fprintf(w, "Hello %s!", name)
}

// Package function is a typed function: the framework turns JSON into a Person, and a Greeting into JSON.
package function

import "github.com/GoogleCloudPlatform/functions-framework-go/functions"

func init() {
	functions.Typed("Typed", Typed)
}

// Person is whom to greet.
type Person struct {
	Name string `json:"name"`
}

// Greeting is what to say.
type Greeting struct {
	Greeting string `json:"greeting"`
}

// Typed greets a person.
func Typed(person Person) (Greeting, error) {
	return Greeting{"Hello " + person.Name + "!"}, nil
}

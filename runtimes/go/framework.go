// What the program around a function needs, and nothing of the function: for sources whose vendored packages lack it.
package main

import (
	_ "github.com/GoogleCloudPlatform/functions-framework-go/funcframework"
	_ "github.com/GoogleCloudPlatform/functions-framework-go/functions"
	_ "github.com/cloudevents/sdk-go/v2"
)

func main() {}

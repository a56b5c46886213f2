// Package echo is what server and client of tanebi.Echo share: its names, and messages that are bytes.
package echo

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // Registered before what takes its place.
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// Service is the name of the service.
const Service = "tanebi.Echo"

// Method is the path of a method.
func Method(name string) string {
	return "/" + Service + "/" + name
}

// codec takes bytes as they are: no message of the service is declared anywhere, in no language.
type codec struct{}

func init() {
	encoding.RegisterCodecV2(codec{})
}

func (codec) Name() string {
	return "proto"
}

func (codec) Marshal(value any) (mem.BufferSlice, error) {
	switch value := value.(type) {
	case *[]byte:
		return mem.BufferSlice{mem.SliceBuffer(*value)}, nil
	case proto.Message:
		bytes, err := proto.Marshal(value)
		return mem.BufferSlice{mem.SliceBuffer(bytes)}, err
	}
	return nil, fmt.Errorf("a %T is no message", value)
}

func (codec) Unmarshal(data mem.BufferSlice, value any) error {
	switch value := value.(type) {
	case *[]byte:
		*value = data.Materialize()
		return nil
	case proto.Message:
		return proto.Unmarshal(data.Materialize(), value)
	}
	return fmt.Errorf("a %T is no message", value)
}

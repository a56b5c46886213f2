// Package echo is what server and client of tanebi.Echo share: its names, and messages that are bytes.
package echo

import (
	"fmt"

	"google.golang.org/grpc/encoding"
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
	encoding.RegisterCodec(codec{})
}

func (codec) Name() string {
	return "proto"
}

func (codec) Marshal(value any) ([]byte, error) {
	switch value := value.(type) {
	case *[]byte:
		return *value, nil
	case proto.Message:
		return proto.Marshal(value)
	}
	return nil, fmt.Errorf("a %T is no message", value)
}

func (codec) Unmarshal(data []byte, value any) error {
	switch value := value.(type) {
	case *[]byte:
		*value = append([]byte(nil), data...)
		return nil
	case proto.Message:
		return proto.Unmarshal(data, value)
	}
	return fmt.Errorf("a %T is no message", value)
}

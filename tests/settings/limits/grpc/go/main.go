// A gRPC server that answers with what it is told: each of the four kinds of calls, with metadata, statuses, and an eye on who goes early.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"example.com/echo/echo"
)

var (
	// Calls that ended before they were answered: cancelled, or past their time.
	ended atomic.Int64
	// Opened by a call, so that the second part of a stream is sent after the first has arrived.
	gate = make(chan struct{}, 1)
)

func main() {
	listener, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(64<<20), grpc.MaxSendMsgSize(64<<20))
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: echo.Service,
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			{MethodName: "Unary", Handler: unary(say)},
			{MethodName: "Open", Handler: unary(open)},
			{MethodName: "Ended", Handler: unary(countEnded)},
		},
		Streams: []grpc.StreamDesc{
			{StreamName: "ServerStream", Handler: serverStream, ServerStreams: true},
			{StreamName: "ClientStream", Handler: clientStream, ClientStreams: true},
			{StreamName: "Bidi", Handler: bidi, ServerStreams: true, ClientStreams: true},
		},
	}, nil)
	log.Fatal(server.Serve(listener))
}

func unary(answer func(context.Context, []byte) ([]byte, error)) grpc.MethodHandler {
	return func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var message []byte
		if err := decode(&message); err != nil {
			return nil, err
		}
		reply, err := answer(ctx, message)
		return &reply, err
	}
}

func told(ctx context.Context, name string) string {
	values := metadata.ValueFromIncomingContext(ctx, name)
	if len(values) == 0 {
		return ""
	}
	return values[0]
}

// failure is the status that the caller asks for.
func failure(ctx context.Context) error {
	code, err := strconv.Atoi(told(ctx, "fail"))
	if err != nil {
		return nil
	}
	return status.Errorf(codes.Code(code), "だめ: %d", code)
}

// say sends back the message, and the metadata at both ends.
func say(ctx context.Context, message []byte) ([]byte, error) {
	if told(ctx, "wait") != "" {
		<-ctx.Done()
		ended.Add(1)
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	if err := failure(ctx); err != nil {
		return nil, err
	}
	back := metadata.Pairs("told", told(ctx, "tell"), "told-bin", told(ctx, "tell-bin"))
	return message, errors.Join(grpc.SetHeader(ctx, back), grpc.SetTrailer(ctx, metadata.Pairs("told-at-last", told(ctx, "tell"))))
}

func open(context.Context, []byte) ([]byte, error) {
	gate <- struct{}{}
	return nil, nil
}

func countEnded(context.Context, []byte) ([]byte, error) {
	return fmt.Append(nil, ended.Load()), nil
}

func serverStream(_ any, stream grpc.ServerStream) error {
	var message []byte
	if err := stream.RecvMsg(&message); err != nil {
		return err
	}
	first, last := []byte("first"), []byte("last")
	if err := stream.SendMsg(&first); err != nil {
		return err
	}
	select {
	case <-gate:
	case <-stream.Context().Done():
		ended.Add(1)
		return stream.Context().Err()
	}
	if err := stream.SendMsg(&last); err != nil {
		return err
	}
	stream.SetTrailer(metadata.Pairs("told-at-last", told(stream.Context(), "tell")))
	return failure(stream.Context())
}

func clientStream(_ any, stream grpc.ServerStream) error {
	total := 0
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			reply := fmt.Append(nil, total)
			return stream.SendMsg(&reply)
		} else if err != nil {
			return err
		}
		total += len(message)
	}
}

func bidi(_ any, stream grpc.ServerStream) error {
	for {
		var message []byte
		if err := stream.RecvMsg(&message); err == io.EOF {
			return failure(stream.Context())
		} else if err != nil {
			ended.Add(1)
			return err
		}
		if err := stream.SendMsg(&message); err != nil {
			return err
		}
		if told(stream.Context(), "early") != "" {
			return failure(stream.Context())
		}
	}
}

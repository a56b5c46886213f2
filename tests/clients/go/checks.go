package main

import (
	"errors"
	"fmt"
	"log"
	"reflect"
	"time"

	"google.golang.org/api/googleapi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const patience = time.Minute

var passed int

// check counts what holds; the first thing that does not ends the program.
func check(what string, seen, expect any) {
	if !reflect.DeepEqual(seen, expect) {
		log.Panicf("%s: %#v, not %#v", what, seen, expect)
	}
	passed++
}

// must gives what a call gave, which must not be an error.
func must[T any](seen T, err error) T {
	if err != nil {
		log.Panic(err)
	}
	return seen
}

// refused: the error must have this code of gRPC.
func refused(what string, code codes.Code, err error) {
	check(what, status.Code(err).String(), code.String())
}

// refusedHTTP: the error must have this status.
func refusedHTTP(what string, code int, err error) {
	var of *googleapi.Error
	if !errors.As(err, &of) {
		log.Panicf("%s: %v, not %d", what, err, code)
	}
	check(what, of.Code, code)
}

// eventually looks again until look says yes.
func eventually(what string, look func() bool) {
	for end := time.Now().Add(patience); !look(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			log.Panicf("%s: never", what)
		}
	}
}

func told() {
	fmt.Printf("%d checks passed\n", passed)
}

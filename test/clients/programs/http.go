package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	base := os.Args[1]
	payload := strings.Repeat("x", 100_000)
	steps := [][3]string{
		{"get", "GET", "/get"},
		{"post", "POST", "/echo"},
		{"big", "GET", "/big"},
		{"keep-1", "GET", "/keep/1"},
		{"keep-2", "GET", "/keep/2"},
		{"healed", "GET", "/healed"},
	}
	for _, step := range steps {
		var content io.Reader
		if step[1] == "POST" {
			content = strings.NewReader(payload)
		}
		request, err := http.NewRequest(step[1], base+step[2], content)
		if err != nil {
			panic(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			panic(err)
		}
		body, err := io.ReadAll(response.Body)
		if err != nil {
			panic(err)
		}
		response.Body.Close()
		fmt.Printf("{\"step\":%q,\"status\":%d,\"sha256\":\"%x\"}\n",
			step[0], response.StatusCode, sha256.Sum256(body))
	}
}

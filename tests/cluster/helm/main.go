// Command helm is Helm 4, whole, as its Go module has it: what users install the charts with.
package main

import (
	"errors"
	"log/slog"
	"os"

	helmcmd "helm.sh/helm/v4/pkg/cmd"
	"helm.sh/helm/v4/pkg/kube"
)

func main() {
	kube.ManagedFieldsManager = "helm"
	command, err := helmcmd.NewRootCmd(os.Stdout, os.Args[1:], helmcmd.SetupLogging)
	if err != nil {
		slog.Error("helm did not start", slog.Any("error", err))
		os.Exit(1)
	}
	if err := command.Execute(); err != nil {
		code := 1
		if coded, ok := errors.AsType[helmcmd.CommandError](err); ok {
			code = coded.ExitCode
		}
		os.Exit(code)
	}
}

package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient;
import picocli.CommandLine.Option;

/** Which server to talk to. */
final class ServerOption {
  @Option(
      names = "--server",
      paramLabel = "HOST:PORT",
      defaultValue = "${env:WARDROBE_SERVER:-127.0.0.1:7070}",
      description = "The server (default: $WARDROBE_SERVER, else 127.0.0.1:7070).")
  private String server = "";

  String target() {
    return server;
  }

  WardrobeClient connect() {
    return WardrobeClient.connect(server);
  }
}

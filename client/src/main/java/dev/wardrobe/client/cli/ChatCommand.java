package dev.wardrobe.client.cli;

import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import io.grpc.StatusRuntimeException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** A conversation at the terminal, whose adapter can change with every message. */
@Command(
    name = "chat",
    description = "Talks with the base or an adapter; /help inside lists what can be typed.",
    mixinStandardHelpOptions = true)
final class ChatCommand implements Callable<Integer> {
  private static final String HELP =
      """
      /adapter NAME[=WEIGHT] ...   answer as this adapter from now on, or as the sum of these
      /base                        answer as the base from now on
      /adapters                    list the adapters that are loaded
      /system TEXT                 begin again with this system message
      /reset                       begin again
      /quit                        leave (or end of input)\
      """;

  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;
  @Mixin private SamplingOptions sampling;
  @Mixin private AdapterOption adapter;

  @Option(names = "--system", paramLabel = "TEXT", description = "A system message.")
  private @Nullable String system;

  private AdapterChoice choice = AdapterChoice.BASE;
  private final List<Message> messages = new ArrayList<>();

  @Override
  public Integer call() throws IOException {
    PrintWriter out = spec.commandLine().getOut();
    boolean interactive = Terminal.attached();
    choice = adapter.choice();
    reset();
    try (WardrobeClient client = server.connect();
        BufferedReader in =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
      while (true) {
        if (interactive) {
          out.print(choice.equals(AdapterChoice.BASE) ? "> " : choice + "> ");
          out.flush();
        }
        String line = in.readLine();
        if (line == null || line.strip().equals("/quit")) {
          return 0;
        }
        try {
          if (line.startsWith("/")) {
            command(client, line.strip(), out);
          } else if (!line.isBlank()) {
            answer(client, line, out);
          }
        } catch (StatusRuntimeException e) {
          out.println("error: " + Cli.explain(e));
        }
        out.flush();
      }
    }
  }

  private void command(WardrobeClient client, String line, PrintWriter out) {
    String[] words = line.split("\\s+", 2);
    String argument = words.length > 1 ? words[1] : "";
    switch (words[0]) {
      case "/adapter" -> {
        if (argument.isEmpty()) {
          out.println("error: /adapter needs a name; /adapters lists them");
        } else {
          choose(argument, out);
        }
      }
      case "/base" -> choice = AdapterChoice.BASE;
      case "/adapters" -> {
        for (Adapter loaded : client.listAdapters()) {
          out.println(loaded.getName() + "  " + loaded.getDigest());
        }
      }
      case "/system" -> {
        system = argument.isEmpty() ? null : argument;
        reset();
      }
      case "/reset" -> reset();
      case "/help" -> out.println(HELP);
      default -> out.println("error: unknown command " + words[0] + "; /help lists them");
    }
  }

  private void choose(String words, PrintWriter out) {
    try {
      choice = AdapterChoice.of(List.of(words.split("\\s+")));
    } catch (IllegalArgumentException e) {
      out.println("error: " + e.getMessage());
    }
  }

  private void reset() {
    messages.clear();
    if (system != null) {
      messages.add(Message.newBuilder().setRole("system").setContent(system).build());
    }
  }

  private void answer(WardrobeClient client, String line, PrintWriter out) {
    messages.add(Message.newBuilder().setRole("user").setContent(line).build());
    GenerateRequest.Builder request = sampling.request().addAllMessages(messages);
    adapter.in(choice, request);
    StringBuilder text = new StringBuilder();
    try {
      Iterator<GenerateEvent> events = client.chat(request.build());
      while (events.hasNext()) {
        String piece = events.next().getDelta().getText();
        text.append(piece);
        out.print(piece);
        out.flush();
      }
    } catch (StatusRuntimeException e) {
      // The question that failed must not stay in the conversation.
      messages.removeLast();
      throw e;
    }
    out.println();
    messages.add(
        Message.newBuilder().setRole("assistant").setContent(text.toString().strip()).build());
  }
}

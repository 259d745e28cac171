package dev.wardrobe.client.cli;

import dev.wardrobe.client.AnswerStream;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Adapter;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.Message;
import dev.wardrobe.v1.ModelInfoResponse;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.PrintWriter;
import java.util.ArrayList;
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

  @Option(
      names = "--no-history",
      description = "Neither read nor keep what was typed before (~/.local/state/wardrobe).")
  private boolean noHistory;

  @Option(
      names = "--json",
      description = "Print each event of an answer as it comes, a JSON document a line.")
  private boolean json;

  /** The answer that is being written, for Ctrl-C. */
  private volatile @Nullable AnswerStream running;

  @Override
  public Integer call() throws IOException {
    PrintWriter out = spec.commandLine().getOut();
    choice = adapter.choice();
    reset();
    try (WardrobeClient client = server.connect();
        ChatInput in = ChatInput.open(Terminal.attached() && !json, noHistory, this::interrupt)) {
      if (in.interactive()) {
        // Before anything is typed for nobody; and who is there.
        ModelInfoResponse info = client.modelInfo();
        out.printf(
            "%s on %s; /help lists what can be typed.%n", info.getModel(), info.getBackend());
        out.flush();
      }
      int exit = ExitCode.DONE;
      while (true) {
        String line = in.next(choice.equals(AdapterChoice.BASE) ? "> " : choice + "> ");
        if (line == null || line.strip().equals("/quit")) {
          // A script wants to know.
          return in.interactive() ? ExitCode.DONE : exit;
        }
        try {
          if (line.startsWith("/")) {
            command(client, line.strip(), out);
          } else if (!line.isBlank()) {
            answer(client, line, out);
          }
        } catch (StatusRuntimeException e) {
          Failure failure = Failure.of(e);
          exit = failure.exit();
          out.flush();
          PrintWriter err = spec.commandLine().getErr();
          err.println(json ? failure.json() : "wardrobe: " + failure.message());
          err.flush();
        }
        ClosedPipeException.check(out);
      }
    }
  }

  private void interrupt() {
    AnswerStream answer = running;
    if (answer != null) {
      answer.close();
    }
  }

  private void command(WardrobeClient client, String line, PrintWriter out) {
    String[] words = line.split("\\s+", 2);
    String argument = words.length > 1 ? words[1] : "";
    switch (words[0]) {
      case "/adapter" -> {
        if (argument.isEmpty()) {
          out.println("wardrobe: /adapter needs a name; /adapters lists them");
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
      default -> out.println("wardrobe: unknown command " + words[0] + "; /help lists them");
    }
  }

  private void choose(String words, PrintWriter out) {
    try {
      choice = AdapterChoice.of(List.of(words.split("\\s+")));
    } catch (IllegalArgumentException e) {
      out.println("wardrobe: " + e.getMessage());
    }
  }

  private void reset() {
    messages.clear();
    if (system != null) {
      messages.add(Message.newBuilder().setRole("system").setContent(system).build());
    }
  }

  private void answer(WardrobeClient client, String line, PrintWriter out) throws IOException {
    messages.add(Message.newBuilder().setRole("user").setContent(line).build());
    GenerateRequest.Builder request = sampling.request().addAllMessages(messages);
    adapter.in(choice, request);
    StringBuilder text = new StringBuilder();
    try (AnswerStream events = client.chat(request.build())) {
      running = events;
      while (events.hasNext()) {
        GenerateEvent event = events.next();
        String piece = event.getDelta().getText();
        text.append(piece);
        out.print(json ? ProtoJson.line(event) + "\n" : piece);
        ClosedPipeException.check(out);
      }
    } catch (StatusRuntimeException e) {
      if (e.getStatus().getCode() == Status.Code.CANCELLED) {
        // Ctrl-C: what there is of the answer belongs to the conversation.
        out.print(" [interrupted]");
      } else {
        // The question that failed must not stay in the conversation.
        messages.removeLast();
        if (!json && !text.isEmpty()) {
          out.println();
        }
        throw e;
      }
    } finally {
      running = null;
    }
    if (!json) {
      out.println();
    }
    messages.add(
        Message.newBuilder().setRole("assistant").setContent(text.toString().strip()).build());
  }
}

package dev.wardrobe.client.cli;

import dev.wardrobe.client.AnswerStream;
import dev.wardrobe.client.WardrobeClient;
import dev.wardrobe.v1.Choice;
import dev.wardrobe.v1.GenerateEvent;
import dev.wardrobe.v1.GenerateRequest;
import dev.wardrobe.v1.GenerateResponse;
import dev.wardrobe.v1.Message;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import java.util.concurrent.Callable;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** One answer, streamed to standard output. */
@Command(
    name = "generate",
    description = "Answers one prompt, streaming; a prompt of - is read from standard input.",
    mixinStandardHelpOptions = true)
final class GenerateCommand implements Callable<Integer> {
  @Spec private CommandSpec spec;
  @Mixin private ServerOption server;
  @Mixin private SamplingOptions sampling;
  @Mixin private ConstraintOptions constraint;
  @Mixin private AdapterOption adapter;

  @Parameters(paramLabel = "PROMPT", description = "The prompt, or - for standard input.")
  private String prompt = "";

  @Option(
      names = "--chat",
      description = "Put the prompt through the model's chat template as a user's message.")
  private boolean chat;

  @Option(names = "--system", paramLabel = "TEXT", description = "With --chat: a system message.")
  private @Nullable String system;

  @Option(
      names = "--n",
      paramLabel = "N",
      description = "So many answers, each drawn with a seed of its own.")
  private @Nullable Integer n;

  @Option(
      names = "--best-of",
      paramLabel = "N",
      description = "Generate N answers, and show those with the highest mean log-probability.")
  private @Nullable Integer bestOf;

  @Option(names = "--json", description = "Print the whole response as one JSON document.")
  private boolean json;

  @Option(
      names = "--stream",
      description = "With --json: print each event as it comes, a JSON document a line.")
  private boolean stream;

  @Override
  public Integer call() throws IOException, UnknownAdapterException {
    String text =
        prompt.equals("-") ? new String(System.in.readAllBytes(), StandardCharsets.UTF_8) : prompt;
    GenerateRequest.Builder request = sampling.request();
    constraint.in(request);
    adapter.in(request);
    if (chat || system != null) {
      if (system != null) {
        request.addMessages(Message.newBuilder().setRole("system").setContent(system));
      }
      request.addMessages(Message.newBuilder().setRole("user").setContent(text));
    } else {
      request.setPrompt(text);
    }
    if (n != null) {
      request.setN(n);
    }
    if (bestOf != null) {
      request.setBestOf(bestOf);
    }
    if (stream && !json) {
      throw new ParameterException(
          spec.commandLine(), "--stream: expected --json too; text is streamed without");
    }
    PrintWriter out = spec.commandLine().getOut();
    try (WardrobeClient client = server.connect()) {
      answer(client, request.build(), out);
    } catch (StatusRuntimeException e) {
      adapter.refused(e, server);
      throw e;
    }
    return ExitCode.DONE;
  }

  private void answer(WardrobeClient client, GenerateRequest request, PrintWriter out)
      throws IOException {
    if (json && !stream) {
      out.println(ProtoJson.document(client.generate(request)));
    } else if (!json && (n != null || bestOf != null)) {
      // Answers that grow side by side cannot be read on a terminal.
      GenerateResponse response = client.generate(request);
      if (response.getChoicesCount() < 2) {
        out.println(response.getText());
      } else {
        for (Choice choice : response.getChoicesList()) {
          out.printf(
              Locale.ROOT,
              "[%d] seed %s, mean log-probability %.3f%n%s%n",
              choice.getIndex(),
              Long.toUnsignedString(choice.getSeed()),
              choice.getMeanLogprob(),
              choice.getText());
        }
      }
    } else {
      try (AnswerStream events = client.stream(request)) {
        Unfinished line = new Unfinished(!json && Terminal.out(), out);
        while (events.hasNext()) {
          GenerateEvent event = events.next();
          if (json) {
            out.println(ProtoJson.line(event));
          } else {
            out.print(event.getDelta().getText());
          }
          // Closing the stream ends the answer on the server.
          ClosedPipeException.check(out);
        }
        line.finish();
      }
      if (!json) {
        out.println();
      }
    }
    ClosedPipeException.check(out);
  }
}

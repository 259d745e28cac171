package dev.wardrobe.client.cli;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.concurrent.Callable;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** {@code wardrobe completion}: a script for the shell. */
@Command(
    name = "completion",
    description = "Prints a script with which a shell completes commands, options and adapters.",
    footer = {
      "",
      "bash: eval \"$(wardrobe completion bash)\" in ~/.bashrc",
      "zsh:  eval \"$(wardrobe completion zsh)\" in ~/.zshrc, after compinit",
      "fish: wardrobe completion fish > ~/.config/fish/completions/wardrobe.fish"
    },
    mixinStandardHelpOptions = true)
final class CompletionCommand implements Callable<Integer> {
  /** The other jar's commands, where it is on the class path. */
  private static final String OTHER = "dev.wardrobe.Main";

  private enum Shell {
    BASH,
    ZSH,
    FISH
  }

  @Spec private CommandSpec spec;

  @Parameters(paramLabel = "bash|zsh|fish", description = "The shell.")
  private Shell shell = Shell.BASH;

  @Override
  public Integer call() throws ReflectiveOperationException {
    CommandTree tree = tree();
    PrintWriter out = spec.commandLine().getOut();
    out.print(shell == Shell.FISH ? fish(tree) : bash(tree, shell == Shell.ZSH));
    out.flush();
    return ExitCode.DONE;
  }

  /** The commands of both jars. */
  static CommandTree tree() throws ReflectiveOperationException {
    CommandTree tree = new CommandTree();
    tree.add(Cli.commandLine());
    try {
      tree.add((CommandLine) Class.forName(OTHER).getMethod("commandLine").invoke(null));
    } catch (ClassNotFoundException e) {
      // This jar's alone, then.
    }
    return tree;
  }

  private static void bash(CommandTree tree, String path, List<String> rows, List<String> values) {
    List<String> words = new ArrayList<>(tree.commands().keySet());
    List<String> options = new ArrayList<>();
    String position = "";
    for (CommandTree.Argument option : tree.options()) {
      options.addAll(option.names());
      String action = action(option);
      if (option.value() != CommandTree.Value.NONE) {
        for (String name : option.names()) {
          values.add("    '%s %s') %s ;;".formatted(path, name, action));
        }
      }
    }
    for (CommandTree.Argument each : tree.positions()) {
      if (position.isEmpty()) {
        position = action(each);
      }
    }
    rows.add(
        "    '%s') words='%s'; options='%s'; position='%s' ;;"
            .formatted(
                path,
                String.join(" ", words),
                String.join(" ", options),
                position.replace("'", "'\\''")));
    tree.commands()
        .forEach((name, sub) -> bash(sub, path.isEmpty() ? name : path + " " + name, rows, values));
  }

  private static String action(CommandTree.Argument argument) {
    return switch (argument.value()) {
      case NONE, OTHER -> ":";
      case FILE -> "_wardrobe_files";
      case ADAPTER -> "_wardrobe_adapters";
      case WORDS -> "_wardrobe_words \"" + String.join(" ", argument.words()) + "\"";
    };
  }

  private static void paths(CommandTree tree, String path, List<String> paths) {
    tree.commands()
        .forEach(
            (name, sub) -> {
              String below = path.isEmpty() ? name : path + " " + name;
              paths.add("'" + below + "'");
              paths(sub, below, paths);
            });
  }

  private static String bash(CommandTree tree, boolean zsh) {
    List<String> rows = new ArrayList<>();
    List<String> values = new ArrayList<>();
    List<String> paths = new ArrayList<>();
    bash(tree, "", rows, values);
    paths(tree, "", paths);
    return (zsh ? "autoload -U +X bashcompinit && bashcompinit\n" : "")
        + """
        # wardrobe completion for bash, and for zsh by its bashcompinit
        _wardrobe_words() {
          local word
          for word in $1; do
            case $word in "$cur"*) COMPREPLY+=("$word") ;; esac
          done
        }
        _wardrobe_files() {
          local file
          while IFS= read -r file; do COMPREPLY+=("$file"); done < <(compgen -f -- "$cur")
          type compopt > /dev/null 2>&1 && compopt -o filenames
        }
        # A running server's, asked again after 10 seconds.
        _wardrobe_adapters() {
          if [ -z "${_wardrobe_asked:-}" ] || [ $((SECONDS - _wardrobe_asked)) -ge 10 ]; then
            _wardrobe_names=$("$program" adapters list --names --timeout 3 --attempts 1 2> /dev/null | tr '\\n' ' ')
            _wardrobe_asked=$SECONDS
          fi
          _wardrobe_words "$_wardrobe_names"
        }
        _wardrobe() {
          local program=${COMP_WORDS[0]} cur=${COMP_WORDS[COMP_CWORD]} before='' path='' next i
          local words='' options='' position=''
          COMPREPLY=()
          for ((i = 1; i < COMP_CWORD; i++)); do
            next="${path:+$path }${COMP_WORDS[i]}"
            case $next in
              %s) path=$next ;;
            esac
          done
          [ "$COMP_CWORD" -lt 2 ] || before=${COMP_WORDS[COMP_CWORD-1]}
          case "$path $before" in
        %s
            *) before='' ;;
          esac
          [ -z "$before" ] || return 0
          case $path in
        %s
          esac
          case $cur in
            -*) _wardrobe_words "$options" ;;
            *) if [ -n "$words" ]; then _wardrobe_words "$words"; else eval "${position:-:}"; fi ;;
          esac
        }
        complete -F _wardrobe wardrobe
        """
            .formatted(
                String.join(" | ", paths), String.join("\n", values), String.join("\n", rows));
  }

  private static String fish(CommandTree tree) {
    List<String> lines = new ArrayList<>();
    List<String> paths = new ArrayList<>();
    paths(tree, "", paths);
    lines.add(
        """
        # wardrobe completion for fish
        function __wardrobe_path
            set -l path ''
            for word in (commandline -opc)[2..-1]
                set -l next (string trim "$path $word")
                contains -- $next %s; and set path $next
            end
            echo $path
        end
        function __wardrobe_at
            test (__wardrobe_path) = "$argv"
        end
        function __wardrobe_adapters
            wardrobe adapters list --names --timeout 3 --attempts 1 2>/dev/null
        end
        complete -c wardrobe -f\
        """
            .formatted(String.join(" ", paths)));
    fish(tree, "", lines);
    return String.join("\n", lines) + "\n";
  }

  private static void fish(CommandTree tree, String path, List<String> lines) {
    String at =
        "complete -c wardrobe -n '__wardrobe_at %s'".formatted(path.isEmpty() ? "\"\"" : path);
    tree.commands()
        .forEach(
            (name, sub) -> lines.add("%s -a '%s' -d '%s'".formatted(at, name, sub.description())));
    for (CommandTree.Argument option : tree.options()) {
      StringBuilder line = new StringBuilder(at);
      for (String name : option.names()) {
        line.append(
            name.startsWith("--") ? " -l " + name.substring(2) : " -s " + name.substring(1));
      }
      lines.add(line + take(option) + " -d '%s'".formatted(option.description()));
    }
    if (tree.commands().isEmpty() && !tree.positions().isEmpty()) {
      String take = take(tree.positions().getFirst());
      if (take.contains("-a") || take.contains("-F")) {
        lines.add(at + take.replace(" -r", ""));
      }
    }
    tree.commands()
        .forEach((name, sub) -> fish(sub, path.isEmpty() ? name : path + " " + name, lines));
  }

  private static String take(CommandTree.Argument argument) {
    return switch (argument.value()) {
      case NONE -> "";
      case OTHER -> " -r";
      case FILE -> " -r -F";
      case ADAPTER -> " -r -a '(__wardrobe_adapters)'";
      case WORDS ->
          " -r -a '%s'".formatted(String.join(" ", argument.words()).toLowerCase(Locale.ROOT));
    };
  }
}

package dev.wardrobe;

import dev.wardrobe.engine.EngineStats;
import dev.wardrobe.model.Model;
import dev.wardrobe.quant.QuantOptions;
import dev.wardrobe.v1.MemoryUse;
import dev.wardrobe.v1.ModelInfoResponse;
import dev.wardrobe.v1.PrefixCache;

/** The answer to the ModelInfo call. */
final class ModelInfo {
  private ModelInfo() {}

  static ModelInfoResponse of(Stack stack) {
    Model model = stack.model();
    EngineStats stats = stack.engine().stats();
    ModelInfoResponse.Builder info =
        ModelInfoResponse.newBuilder()
            .setModel(model.name())
            .setFamily(model.config().family())
            .setLayers(model.config().layers())
            .setHiddenSize(model.config().hidden())
            .setVocabularySize(model.config().vocabulary())
            .setContextLength(stack.engine().contextLength())
            .setParameters(model.memory().parameters())
            .setFingerprint(model.fingerprint())
            .setBackend(stack.backend().describe())
            .setMath(stack.backend().math().id())
            .addAllEosTokenIds(model.defaults().eos())
            .setHasTokenizer(stack.prompts().hasTokenizer())
            .setHasChatTemplate(stack.prompts().hasTemplate())
            .setMemory(memory(stack))
            .setSteps(stats.steps())
            .setRunningSequences(stats.running())
            .setWaitingSequences(stats.waiting())
            .setPrefixCache(prefixCache(stats))
            .setHeadQuantized(model.modules().head().quantized())
            .setWeightsMapped(model.mapped())
            .setVersion(Version.text());
    QuantOptions quantization = model.quantization();
    if (quantization == null) {
      info.setQuantization("none");
    } else {
      info.setQuantization(quantization.type().id())
          .setDoubleQuantization(quantization.doubleQuant())
          .setBlockSize(quantization.blockSize());
    }
    return info.build();
  }

  private static PrefixCache prefixCache(EngineStats stats) {
    return PrefixCache.newBuilder()
        .setLookupTokens(stats.prefixLookups())
        .setHitTokens(stats.prefixHits())
        .setCachedBlocks(stats.cachedBlocks())
        .setEvictedBlocks(stats.prefixEvictions())
        .setBlocks(stats.blocks() - stats.lentBlocks())
        .setFreeBlocks(stats.freeBlocks())
        .build();
  }

  private static MemoryUse memory(Stack stack) {
    dev.wardrobe.model.MemoryUse base = stack.model().memory();
    long kv = stack.engine().stats().touchedBlocks() * stack.engine().kvShape().blockBytes();
    long adapters = stack.adapters().residentBytes();
    return MemoryUse.newBuilder()
        .setBasePacked(base.packed())
        .setBaseAbsmax(base.absmax())
        .setBaseNestedAbsmax(base.nestedAbsmax())
        .setBaseDense(base.dense())
        .setEmbeddings(base.embeddings())
        .setNormsAndBiases(base.norms())
        .setKvCache(kv)
        .setAdapters(adapters)
        .setWorkspace(stack.engine().workspaceBytes() + stack.backend().workspaceBytes())
        .setBitsPerWeight(base.bitsPerWeight())
        .build();
  }
}

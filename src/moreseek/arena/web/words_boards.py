"""What the boards, their pictures and the battle page's modes say."""

from moreseek.arena.cautions import TEXTS

BOARDS_SAY: dict[str, dict[str, str]] = {
    "en": {
        "lang_code": "en", "colon": ": ", "comma": ", ", "semicolon": "; ", "stop": ".", "open": " (", "close": ")",
        "flip": "Removing {removed:,} of {votes:,} votes puts {rival} before {leader}.",
        **{f"caution_{code}": text for code, text in TEXTS.items()},
        "cluster_voter": "voter", "cluster_prompt": "prompt",
        "style": "Style", "style_plain": "as voted", "style_equal": "style held equal",
        "style_latency": "style and latency held equal", "style_cost": "style, latency and cost held equal",
        "style_lead": "What is left of each rating when length, headers, bold text and lists of the answers are held "
        "equal, and, where chosen, how long they took and what they cost. From the latest votes of which that is known "
        "for both answers; at most half a minute old.",
        "with_latency": "seconds", "with_cost": "cost",
        "judged_by_whom": "Judged by", "people": "people", "judged_by": "judged by {}",
        "judged_lead": "This board is what the judge {} said, apart from people's votes: none of them is on it, and "
        "it is on no board of theirs.", "judgements": "judgements", "judgements_of": "What {} said",
        "judged_no_texts": "What the judge said on this board, newest first, as the ledger has it: without questions "
        "and answers.",
        "agreement": "Agreement on the same battles", "agrees_with": "and …", "in_common": "Battles in common",
        "same": "Said the same", "decided": "The same, where both decided", "of_n": "of {}",
        "alpha": "Krippendorff’s α",
        "agreement_note": "Shares with Wilson’s 95 % intervals. “Decided”: neither said tie or both bad. α is 1 for "
        "full agreement and 0 for what chance gives.", "no_agreement": "No battle yet that others judged too.",
        "as_voted": "As voted", "style_of": "What style was worth, in points for one standard deviation:",
        "style_tokens": "length", "style_headers": "headers", "style_bold": "bold", "style_lists": "lists",
        "plain_words": "In plain words", "best_of": "best of {n} variants of its family: {low:.0f} – {high:.0f}, when "
        "the choice is allowed for", "tokens_each": "Tokens", "seconds_each": "Seconds", "usd_each": "USD / 1000",
        "intervals": "Ratings and their intervals", "intervals_note": "The bar holds the true rating in 95 % of cases. "
        "A hollow mark is provisional. A dashed part reaches as far as the interval must when the best of several "
        "variants of one family is shown.",
        "matrix": "Who beat whom", "matrix_note": "Score of the row against the column in per cent, a tie half. The "
        "numbers of the columns are those of the rows.", "expected": "expected", "frontier": "Price and quality",
        "no_price": "Cost not known:", "no_prices": "No contestant's cost is known: prices belong into arena.toml.",
        "cost_axis": "USD for 1000 answers (log)", "frontier_note": "The line joins those that nothing as cheap or "
        "cheaper is rated above. Costs are means over all answers voted on.", "trend": "Rating over time",
        "trend_note": "The first eight of the board at the end of each day (UTC) with votes, and now; each day as it "
        "stood then, from the counts alone.", "too_early": "Too few votes for a line yet.",
        "embed": "Embed", "behind": "Votes behind this",
        "votes_page": "Votes", "votes_of": "Votes behind", "older": "Older", "newest": "Newest", "left_side": "Left",
        "right_side": "Right", "outcome": "Outcome", "language": "Language", "battle_no": "Battle",
        "chance": "Drawn with", "no_texts": "The rated votes of this board, newest first, as the ledger has them: "
        "without questions and answers.", "won_a": "left better", "won_b": "right better", "won_tie": "tie",
        "won_both_bad": "both bad", "everybody": "everybody",
        "blind": "Blind battle", "named": "Side by side", "direct": "Chat", "mode": "Mode",
        "lead_named": "Two models of your choice, by name. There is no vote, and nothing is kept.",
        "lead_direct": "Talk to one model by name. There is no vote, and nothing is kept.",
        "first_model": "Model A", "second_model": "Model B", "one_model": "Model", "you": "You",
        "ask_one": "Ask", "ask_on": "Ask both again", "further": "Ask on (optional), or vote",
        "random_prompt": "A question for me", "tags": "What stood out? (optional)", "new_chat": "Begin anew",
        "asking_one": "Answering …", "same_twice": "Please choose two different models.",
        "nobody_here": "No model can answer at the moment.", "settings": "Settings", "to_board": "See the board",
    },
    "zh": {
        "lang_code": "zh", "colon": "：", "comma": "，", "semicolon": "；", "stop": "。", "open": "（", "close": "）",
        "flip": "在 {votes:,} 票中去掉 {removed:,} 票，{rival} 就会排到 {leader} 前面。",
        "caution_no_votes": "还没有投票：所有评分仅来自先验。",
        "caution_self_battles": "略去了 {battles} 场模型与自己的对战。",
        "caution_few_clusters": "按{by}只有 {clusters} 个聚类：区间采用自由度为 {df} 的学生 t 分布，仍较粗略。",
        "caution_apart": "胜负图不是强连通的：共有 {components} 个分量 {named}。不同分量之间的评分依据先验"
        "（各一次虚拟的半胜与半负），而非投票。",
        "caution_from_counts": "区间把投票视为相互独立：超过 {most:,} 票后，此榜仅由计数得出。",
        "cluster_voter": "投票者", "cluster_prompt": "问题",
        "style": "风格", "style_plain": "按投票", "style_equal": "控制风格",
        "style_latency": "控制风格与延迟", "style_cost": "控制风格、延迟与成本",
        "style_lead": "在回答的长度、标题、粗体和列表（以及所选的用时与成本）相同的条件下剩下的评分。"
        "基于最近的、两个回答的这些信息均已知的投票；最多延迟半分钟。",
        "with_latency": "用时", "with_cost": "成本",
        "judged_by_whom": "评判者", "people": "人", "judged_by": "由 {} 评判",
        "judged_lead": "此榜为评判者 {} 的判断，与人的投票分开：此榜不含人的投票，其判断也不计入人的榜单。",
        "judgements": "次判断", "judgements_of": "{} 的判断",
        "judged_no_texts": "该评判者在此榜的判断，最新在前，与账本一致：不含问题和回答。",
        "agreement": "对相同对战的一致程度", "agrees_with": "与……", "in_common": "共同的对战",
        "same": "判断相同", "decided": "双方均分出胜负时相同", "of_n": "（共 {}）", "alpha": "克里彭多夫 α",
        "agreement_note": "比例附威尔逊 95% 区间。“分出胜负”：双方都没有判平或都不好。"
        "α 为 1 表示完全一致，0 表示与随机相同。",
        "no_agreement": "还没有其他人也评判过的对战。",
        "as_voted": "按投票", "style_of": "风格的影响（每一个标准差的分数）：",
        "style_tokens": "长度", "style_headers": "标题", "style_bold": "粗体", "style_lists": "列表",
        "plain_words": "通俗解读", "best_of": "本系列 {n} 个变体中的最佳；考虑挑选后为 {low:.0f} – {high:.0f}",
        "tokens_each": "词元", "seconds_each": "秒", "usd_each": "美元/千次",
        "intervals": "评分与区间", "intervals_note": "横条在 95% 的情况下包含真实评分。空心点为暂定。"
        "虚线部分是展示同系列多个变体中最佳者时区间应到达之处。",
        "matrix": "两两胜负", "matrix_note": "行对列的得分（百分比），平局计一半。列号与行号相同。",
        "expected": "预期", "frontier": "价格与质量",
        "no_price": "成本未知：", "no_prices": "没有模型的成本已知：价格写在 arena.toml 中。",
        "cost_axis": "每 1000 次回答的美元（对数）", "frontier_note": "折线连接没有同价或更便宜者评分更高的模型。"
        "成本为所有已投票回答的平均。",
        "trend": "评分随时间的变化", "trend_note": "榜单前八名在每个有投票之日（UTC）结束时以及现在的评分；"
        "每天为当时的结果，仅由计数得出。",
        "too_early": "投票太少，尚无曲线。", "embed": "嵌入", "behind": "背后的投票",
        "votes_page": "投票", "votes_of": "背后的投票：", "older": "更早", "newest": "最新", "left_side": "左",
        "right_side": "右", "outcome": "结果", "language": "语言", "battle_no": "对战",
        "chance": "抽中概率", "no_texts": "本榜计分的投票，最新在前，与账本一致：不含问题和回答。",
        "won_a": "左侧更好", "won_b": "右侧更好", "won_tie": "一样好", "won_both_bad": "都不好",
        "everybody": "所有模型",
        "blind": "盲测对战", "named": "并排对比", "direct": "直接对话", "mode": "模式",
        "lead_named": "选择两个模型，具名并排作答。没有投票，内容不保存。",
        "lead_direct": "与一个模型直接对话。没有投票，内容不保存。",
        "first_model": "模型 A", "second_model": "模型 B", "one_model": "模型", "you": "你",
        "ask_one": "提问", "ask_on": "继续问两个模型", "further": "继续提问（可选），或投票",
        "random_prompt": "给我一个问题", "tags": "有何突出之处？（可选）", "new_chat": "重新开始",
        "asking_one": "正在回答……", "same_twice": "请选择两个不同的模型。",
        "nobody_here": "目前没有模型可以回答。", "settings": "设置", "to_board": "查看榜单",
    },
}  # fmt: skip

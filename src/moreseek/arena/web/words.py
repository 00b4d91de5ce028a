"""What the pages say, in English and Chinese."""

from starlette.requests import Request

from moreseek.arena.web.words_boards import BOARDS_SAY
from moreseek.arena.web.words_house import HOUSE

LANGUAGES = ("en", "zh")
_PAGES: dict[str, dict[str, str]] = {
    "en": {
        "battle": "Battle", "leaderboard": "Leaderboard", "audit": "Audit", "other_language": "中文",
        "theme": "Light or dark",
        "lead": "Ask anything. Two anonymous models answer. Vote for the better answer; then their names are shown.",
        "question": "Your question", "category": "Category", "ask": "Ask both", "asking": "Both are answering …",
        "hint": "Do not write anything private: questions are sent to the models and kept. Ctrl+Enter asks.",
        "private": "This looks like an e-mail address, a phone number or a key. Ask again to send it all the same.",
        "left": "Answer A", "right": "Answer B", "vote": "Which answer is better?",
        "model_a": "A is better", "model_b": "B is better", "tie": "Equally good", "both_bad": "Both are bad",
        "reason": "Why? (optional)", "next": "Next battle",
        "undo": "Take the vote back",
        "undone": "The vote was taken back.", "counted": "Thank you, your vote counts.",
        "apart_identity": "An answer named its author, so this vote is kept apart and not rated.",
        "apart_repeat": "You voted on this question today already, so this vote is kept apart and not rated.",
        "apart_cap": "You have cast as many votes as count in a day; this one is kept apart and not rated.",
        "apart_voter": "This vote is kept and not rated.",
        "thinking": "Thinking", "tokens": "tokens", "first": "s to the first word", "total": "s in all",
        "failed": "Something went wrong. Please ask again.", "cut_short": "cut at its token limit",
        "base": "base", "reasoning": "reasoning", "overall": "Overall", "zh": "Chinese", "en": "English",
        "board": "Board", "all_categories": "all categories", "show": "Show", "votes": "votes", "rank": "Rank",
        "range": "Range", "model": "Model", "class": "Class", "rating": "Rating", "interval": "95 % interval",
        "battles": "Votes", "wins": "Wins", "ties": "Ties", "provisional": "provisional", "withdrawn": "withdrawn",
        "no_votes": "No votes yet.", "waiting": "Entered, without votes on this board",
        "explain": "Ranks are shared where intervals overlap, so a top 11 can hold more than 11. The range is what the "
        "votes leave open. A model with too few votes is provisional and has no rank.",
        "side": "Being shown on the left is worth", "points": "points",
        "registry": "Every contestant ever entered", "entered": "entered", "quota": "quota", "none": "none",
        "family": "Family",
        "paused": "Failures", "share": "Battles drawn", "ledger": "Ledger", "lines": "lines", "head": "last hash",
        "voters": "Voters taken out by a test", "voter": "Voter", "test": "Test", "apart": "Votes kept apart",
        "influence": "Votes of the most active voters", "counts_hold": "The counts equal a recount of the votes.",
        "counts_broken": "The counts do not equal a recount of the votes!", "download": "as",
        "identity": "an answer named its author", "repeat": "same question again", "cap": "over the daily limit",
        "undone_votes": "taken back",
    },
    "zh": {
        "battle": "对战", "leaderboard": "排行榜", "audit": "审计", "other_language": "English", "theme": "浅色或深色",
        "lead": "随便提问，两个匿名模型作答。为更好的回答投票，之后才会揭晓模型名称。",
        "question": "你的问题", "category": "类别", "ask": "让两个模型回答", "asking": "两个模型正在回答……",
        "hint": "请勿填写隐私信息：问题会发送给模型并保存。Ctrl+Enter 提交。",
        "private": "内容像是邮箱、电话号码或密钥。如仍要发送，请再次提交。",
        "left": "回答 A", "right": "回答 B", "vote": "哪个回答更好？",
        "model_a": "A 更好", "model_b": "B 更好", "tie": "一样好", "both_bad": "都不好",
        "reason": "理由（可选）",
        "next": "下一场", "undo": "撤回投票",
        "undone": "投票已撤回。", "counted": "谢谢，你的投票已计入。",
        "apart_identity": "有回答透露了自己的身份，这一票单独保存，不计入评分。",
        "apart_repeat": "你今天已就这个问题投过票，这一票单独保存，不计入评分。",
        "apart_cap": "你今天的计分票数已满，这一票单独保存，不计入评分。",
        "apart_voter": "这一票已保存，不计入评分。",
        "thinking": "思考过程", "tokens": "个词元", "first": "秒后出现首字", "total": "秒总计",
        "failed": "出了点问题，请重新提问。", "cut_short": "达到长度上限被截断",
        "base": "基础模型", "reasoning": "推理模型", "overall": "总榜", "zh": "中文", "en": "英文",
        "board": "榜单", "all_categories": "所有类别", "show": "显示", "votes": "票", "rank": "名次",
        "range": "名次范围", "model": "模型", "class": "类型", "rating": "评分", "interval": "95% 区间",
        "battles": "票数", "wins": "胜", "ties": "平", "provisional": "暂定", "withdrawn": "已撤出",
        "no_votes": "还没有投票。", "waiting": "已参赛，此榜尚无投票",
        "explain": "区间重叠时名次并列，因此前 11 名可能不止 11 个模型。"
        "名次范围是投票尚不能排除的名次。票数太少的模型为暂定，没有名次。",
        "side": "显示在左侧的优势为", "points": "分",
        "registry": "所有曾经参赛的模型", "entered": "参赛时间", "quota": "配额", "none": "无", "family": "系列",
        "paused": "故障次数", "share": "抽中对战", "ledger": "账本", "lines": "行", "head": "最后的哈希",
        "voters": "被检验排除的投票者", "voter": "投票者", "test": "检验", "apart": "单独保存的投票",
        "influence": "最活跃投票者的票数", "counts_hold": "计数与重新清点的投票一致。",
        "counts_broken": "计数与重新清点的投票不一致！", "download": "下载为",
        "identity": "回答透露了身份", "repeat": "重复的问题", "cap": "超过每日上限",
        "undone_votes": "已撤回",
    },
}  # fmt: skip
WORDS = {language: {**_PAGES[language], **BOARDS_SAY[language], **HOUSE[language]} for language in LANGUAGES}
FOR_SCRIPTS = (
    "asking", "private", "undone", "counted", "apart_identity", "apart_repeat", "apart_cap", "apart_voter", "thinking",
    "tokens", "first", "total", "failed", "cut_short", "base", "reasoning", "left", "right", "lead", "lead_named",
    "lead_direct", "ask", "ask_one", "ask_on", "asking_one", "further", "question", "next", "new_chat",
    "random_prompt", "nobody_here", "colon",
)  # fmt: skip
TAGS_ZH = {
    "correct": "正确", "clear": "清晰", "concise": "简洁", "well written": "文笔好", "wrong": "有错误",
    "hard to follow": "难以理解",
}  # fmt: skip
"""The tags that arena.toml has by default; a house's own are shown as they are."""


def language_for(request: Request) -> str:
    """The language asked for in the address, else the browser's first that we have."""
    wanted = request.query_params.get("lang")
    if wanted in LANGUAGES:
        return wanted
    for part in request.headers.get("accept-language", "").split(","):
        found = part.split(";")[0].strip().lower()[:2]
        if found in LANGUAGES:
            return found
    return "en"
